"""Slow schemas make other schemas wait, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.contracts.sgr.v1.api import FormatRequest
from appliance.kit.errors import ApplianceError
from appliance.schema.gate_threads import GATE, MOST_WAITING, THREADS, GateThreads
from services.sgr.service import SchemaGuidedService
from tests.integration.gateway_bed import client_of, open_bed
from tests.unit.router.turn_bed import ANNA, Shelf, router, says
from tests.unit.sgr.sgr_bed import Alias, Catalogue, Drawer, PlainRenderer, Speaker

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@asynccontextmanager
async def full(gate: GateThreads, most: int) -> AsyncIterator[threading.Event]:
    """Every place of ``gate`` is taken until the block ends."""
    release = threading.Event()
    taken = [asyncio.create_task(gate.run(lambda: release.wait(60))) for _ in range(most)]
    await asyncio.sleep(0)  # each takes its place in its first step
    try:
        yield release
    finally:
        release.set()
        await asyncio.gather(*taken)


async def test_beyond_the_queue_schemas_are_refused_while_the_process_goes_on() -> None:
    gate = GateThreads(most_waiting=2)
    async with full(gate, THREADS + 2):
        with pytest.raises(ApplianceError, match="overloaded"):
            await gate.run(lambda: 1)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "audit"), 20) == "audit"
    assert await gate.run(lambda: 1) == 1


async def test_who_leaves_does_not_make_room_for_more_than_the_queue_holds_and_is_not_worked_for() -> None:
    gate, begun = GateThreads(most_waiting=1), threading.Event()
    async with full(gate, THREADS):
        left = asyncio.create_task(gate.run(begun.set))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        with pytest.raises(ApplianceError, match="overloaded"):
            await gate.run(lambda: 1)
    assert await gate.run(lambda: 1) == 1
    assert not begun.is_set()


async def test_chats_and_reports_by_schema_wait_at_the_gate_and_plain_chats_do_not(tmp_path: Path) -> None:
    guided = SchemaGuidedService({"default": Alias("default", Speaker('{"a":"x"}'))}, Shelf(), Catalogue({}), PlainRenderer(), Drawer())
    async with open_bed(tmp_path, router=router(says('{"a":"x"}'))) as bed, client_of(bed) as client, full(GATE, THREADS + MOST_WAITING):
        body = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
        asked = {**body, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}
        assert "overloaded" in (await client.post("/v1/chat/completions", json=asked)).text
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        with pytest.raises(ApplianceError, match="overloaded"):
            async for _ in guided.format(FormatRequest("what?", schema=SCHEMA), ANNA):
                pass
