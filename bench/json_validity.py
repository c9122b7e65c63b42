"""JSON-schema validity of a model with random weights, through the real engine: what it says must satisfy the schema every time.

``make bench-json-validity`` or ``python -m bench.json_validity [--runs 200] [--tokens 400] [--json FILE]``. The model is the tiny one of the tests (own
vocabulary, weights from a seed), in llama.cpp, hot (temperature 1.5), each run with another seed. ``--tokens`` is deliberately short for some schemas: an
answer that is cut gets its ending and must satisfy the schema, too. Each text is checked with ``jsonschema`` itself, not with the gate that admitted it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema

from appliance.contracts.llm.v1.api import AnswerSchema, ChatModel, ChatRequest, Finish, Message, Tokens
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelSigner, ModelTrust
from appliance.hub.snapshot_writing import write_snapshot
from appliance.kit.errors import ApplianceError
from appliance.schema.answers import schema_answer
from appliance.testing.tiny_gguf import write_tiny_gguf
from bench.json_schemas import SCHEMAS
from bench.report import Row, arguments, report
from services.llm.llama_chat_model import LlamaChatModel
from services.llm.settings import LlmSettings

_AT_ONCE = 4
_TEMPERATURE = 1.5
_SHOWN = 300


@dataclass
class Tally:
    """Of one schema."""

    valid: int = 0
    cut: int = 0
    tokens: int = 0
    worst: str = ""


def exactly(text: str) -> Any:
    """JSON with decimals as they are written: in binary fractions 650.92 would be no multiple of 0.01."""
    return json.loads(text, parse_float=Decimal)


async def open_tiny(folder: Path, context: int = 4096) -> LlamaChatModel:
    """The tiny model in llama.cpp, from a signed snapshot in ``folder``."""
    signer = ModelSigner.generate()

    def fill(into: Path) -> None:
        write_tiny_gguf(into / "tiny.gguf", context=context)

    snapshot = write_snapshot(folder, "llm/tiny-v1", {"package": "tiny==1"}, fill, signer=signer)
    spec = ModelSpec(
        "llm", "tiny", "llama.cpp", path="llm/tiny-v1", format="gguf", digest=snapshot.digest, parallel=_AT_ONCE, threads=1, max_context=context
    )
    return await LlamaChatModel.open(spec, folder, ModelTrust.of(signer.public_key), LlmSettings())


async def one(model: ChatModel, name: str, seed: int, tokens: int, tally: Tally) -> None:
    """One run."""
    request = ChatRequest(
        (Message("user", f"say {name}"),),
        options={"temperature": _TEMPERATURE, "seed": seed, "max_tokens": tokens},
        answer_schema=AnswerSchema(name, SCHEMAS[name]),
    )
    text = ""
    try:
        async for event in schema_answer(model.stream, request, model.capabilities):
            if isinstance(event, Tokens):
                text += "".join(event.pieces)
            elif isinstance(event, Finish):
                tally.cut += event.reason == "length"
                tally.tokens += event.usage.completion_tokens
        jsonschema.Draft202012Validator(exactly(json.dumps(SCHEMAS[name]))).validate(exactly(text))
        tally.valid += 1
    except (ApplianceError, ValueError, jsonschema.ValidationError) as exc:
        tally.worst = f"{str(exc)[:_SHOWN]} | {text[-_SHOWN:]}"


async def measure(runs: int, tokens: int, names: Sequence[str] = tuple(SCHEMAS)) -> dict[str, Tally]:
    """All schemas, four runs at once."""
    tallies = {name: Tally() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        model = await open_tiny(Path(folder))
        try:
            waiting = [(name, seed) for name in names for seed in range(runs)]
            iterator = iter(waiting)

            async def work() -> None:
                for name, seed in iterator:
                    await one(model, name, seed, tokens, tallies[name])

            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(work())
        finally:
            await model.close()
    return tallies


def main() -> int:
    """Run and report; 1 when an answer was not valid."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=200, help="for each schema")
    parser.add_argument("--tokens", type=int, default=400, help="max_tokens of a run")
    options = parser.parse_args()
    started = time.perf_counter()
    tallies = asyncio.run(measure(options.runs, options.tokens))
    rows = []
    for name, tally in tallies.items():
        rows.append(Row("json-validity", f"{name}: valid", 100 * tally.valid / options.runs, "%", 100.0))
        rows.append(Row("json-validity", f"{name}: cut and closed", 100 * tally.cut / options.runs, "%"))
        if tally.worst:
            print(f"{name}: {tally.worst}", file=sys.stderr)
    rows.append(Row("json-validity", "all: valid", 100 * sum(tally.valid for tally in tallies.values()) / (options.runs * len(tallies)), "%", 100.0))
    rows.append(Row("json-validity", "seconds", time.perf_counter() - started, "s"))
    report(rows, options.json)
    return 0 if all(tally.valid == options.runs for tally in tallies.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
