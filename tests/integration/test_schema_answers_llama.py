"""Answers by schema from the real engine with a model that knows nothing: grammar, ending of cut answers, ``sgr.format`` on top. One process for all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import jsonschema

from appliance.contracts.sgr.v1.api import FormatRequest, FormatResult
from bench.json_schemas import SCHEMAS
from bench.json_validity import Tally, exactly, one, open_tiny
from tests.unit.sgr.sgr_bed import ANNA, service

NAMES = ("nested", "numbers", "choices", "references", "open")


def test_a_random_model_always_answers_by_the_schema_also_when_it_is_cut(tmp_path: Path) -> None:
    tallies = {(name, tokens): Tally() for name in NAMES for tokens in (3, 120)}

    async def run() -> FormatResult:
        model = await open_tiny(tmp_path)
        try:
            async with asyncio.TaskGroup() as group:
                for (name, tokens), tally in tallies.items():
                    group.create_task(one(model, name, 1, tokens, tally))
            request = FormatRequest("a tree", schema=SCHEMAS["references"], spaces=())
            *_, result = [step async for step in service(model).format(request, ANNA)]
        finally:
            await model.close()
        assert isinstance(result, FormatResult)
        return result

    result = asyncio.run(run())
    assert {key: tally.worst for key, tally in tallies.items() if not tally.valid} == {}
    assert all(tallies[name, 3].cut for name in NAMES)
    assert result.enforced_by == "grammar"
    assert result.rounds == 1
    jsonschema.Draft202012Validator(exactly(json.dumps(SCHEMAS["references"]))).validate(exactly(result.text))
