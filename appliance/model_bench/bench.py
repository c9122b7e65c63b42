"""Measures a chat model of a running box and says what an executor with it can do.

Owns: which measurements there are, and their formulas. Percentiles are by nearest rank. Does not own: the questions (``probes``), the way (``asking``), the file.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from appliance.hub.executor_profile import ExecutorProfile, NeedleMeasured, ShareMeasured, StreamsMeasured, cost_per_task, version_of
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.model_bench.asking import Answered, Asking
from appliance.model_bench.probes import JSON_CASES, TOOL_CASES, TOOLS, fresh, haystack, wire_tools
from appliance.schema.schema_check import SchemaChecker

_STREAMS: Final = (1, 4, 16)
_TELL: Final = "Write a long story about a lighthouse keeper. Do not stop early."
_SAY: Final = "Say hello in one sentence."
_NOT_ABLE: Final = frozenset({"schema_unsupported", "invalid_request"})
_ANSWER_TOKENS: Final = 32
_DATA_TOKENS: Final = 400
_UNKNOWN_CONTEXT: Final = 4096
_CHARACTERS_PER_TOKEN: Final = 4.0
_MOST_CHARACTERS: Final = 900_000  # a chat request may have a million
Tell = Callable[[str, int, int], None]
"""Told what is measured, and how much of it is done."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How thoroughly."""

    first_tokens: int
    story_tokens: int
    repeats: int
    lengths: tuple[float, ...]
    depths: tuple[float, ...]


FULL: Final = Extent(first_tokens=20, story_tokens=128, repeats=4, lengths=(0.1, 0.5, 0.9), depths=(0.1, 0.3, 0.5, 0.7, 0.9))
QUICK: Final = Extent(first_tokens=5, story_tokens=32, repeats=1, lengths=(0.5,), depths=(0.1, 0.5, 0.9))


async def measure(asking: Asking, spec: ModelSpec, extent: Extent, tell: Tell, release: str = "") -> ExecutorProfile:
    """Measure ``spec``, which the box serves.

    Raises:
        ApplianceError: the box cannot be reached or refuses every question; ``upstream_failed`` and others when the model does not answer at all.
    """
    first = await _first_tokens(asking, extent, tell)
    streams = [await _streams(asking, count, extent, tell) for count in _STREAMS]
    data = await _data(asking, extent, tell)
    tools = await _tools(asking, extent, tell)
    needle = await _needle(asking, spec.max_context or _UNKNOWN_CONTEXT, extent, tell)
    return ExecutorProfile(
        kind=spec.kind, alias=spec.alias, version=version_of(spec), measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ttft_p50_seconds=percentile(first, 0.5), ttft_p95_seconds=percentile(first, 0.95), streams=tuple(streams), json=data, tools=tools, needle=needle,
        max_context=spec.max_context, cost_per_task=cost_per_task(spec), quick=extent is QUICK,
        machine=f"{platform.machine()}, {os.cpu_count() or 0} CPUs", release=release,
    )  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 for none; rounded to 10 µs."""
    ordered = sorted(values)
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 5) if ordered else 0.0


async def _first_tokens(asking: Asking, extent: Extent, tell: Tell) -> list[float]:
    found: list[float] = []
    for number in range(extent.first_tokens):
        tell("first token", number, extent.first_tokens)
        answered = await asking.ask(fresh(_SAY), max_tokens=_ANSWER_TOKENS)
        if answered.code and not found:
            raise ApplianceError(answered.code, f"the model does not answer: {answered.text or answered.code}", hint="see: appliance doctor")
        if answered.first_seconds:
            found.append(answered.first_seconds)
    return found


async def _streams(asking: Asking, count: int, extent: Extent, tell: Tell) -> StreamsMeasured:
    tell(f"{count} at once", 0, 1)
    answers, seconds = await asking.many([fresh(_TELL) for _ in range(count)], max_tokens=extent.story_tokens)
    good = [one for one in answers if not one.code]
    first = [one.first_seconds for one in good if one.first_seconds]
    tokens = sum(one.completion_tokens for one in good)
    return StreamsMeasured(
        streams=count, tokens_per_second=round(tokens / seconds, 2) if seconds else 0.0, ttft_p50_seconds=percentile(first, 0.5),
        ttft_p95_seconds=percentile(first, 0.95), failed=len(answers) - len(good),
    )  # fmt: skip


async def _data(asking: Asking, extent: Extent, tell: Tell) -> ShareMeasured:
    """Valid as they leave the box: its grammar or its repairs are part of what an executor gets."""
    cases = JSON_CASES * extent.repeats
    checker, passed = SchemaChecker(), 0
    for number, case in enumerate(cases):
        tell("JSON", number, len(cases))
        form = {"type": "json_schema", "json_schema": {"name": case.name, "schema": case.schema, "strict": True}}
        answered = await asking.ask(fresh(case.question), max_tokens=_DATA_TOKENS, response_format=form)
        if answered.code in _NOT_ABLE:
            return ShareMeasured(passed=0, cases=0, unsupported=answered.code)
        passed += not answered.code and _fits(checker, case.schema, answered.text)
    return ShareMeasured(passed=passed, cases=len(cases))


async def _tools(asking: Asking, extent: Extent, tell: Tell) -> ShareMeasured:
    cases = TOOL_CASES * extent.repeats
    checker, passed = SchemaChecker(), 0
    for number, case in enumerate(cases):
        tell("tools", number, len(cases))
        answered = await asking.ask(fresh(case.question), max_tokens=_DATA_TOKENS, tools=wire_tools(), tool_choice="auto")
        if answered.code in _NOT_ABLE:
            return ShareMeasured(passed=0, cases=0, unsupported=answered.code)
        passed += _called(checker, answered, case.tool)
    return ShareMeasured(passed=passed, cases=len(cases))


def _called(checker: SchemaChecker, answered: Answered, tool: str) -> bool:
    """Exactly that one, with arguments that fit."""
    if answered.code or len(answered.calls) != 1 or answered.calls[0][0] != tool:
        return False
    return _fits(checker, TOOLS[tool], answered.calls[0][1])


def _fits(checker: SchemaChecker, schema: Any, text: str) -> bool:
    try:
        checker.check_result(msgspec.json.encode(schema), json.dumps(json.loads(text)).encode())
    except (ApplianceError, ValueError, RecursionError):
        return False
    return True


async def _needle(asking: Asking, context: int, extent: Extent, tell: Tell) -> tuple[NeedleMeasured, ...]:
    """Lengths by the model's own count: the first text shows how many characters it takes for a token."""
    cells: list[NeedleMeasured] = []
    rate = _CHARACTERS_PER_TOKEN
    total = len(extent.lengths) * len(extent.depths) + 1
    text, _ = haystack(int(min(context * 0.1, 1000) * rate), 0.5)
    tell("needle", 0, total)
    sample = await asking.ask(text, max_tokens=1)
    if not sample.code and sample.prompt_tokens:
        rate = len(text) / sample.prompt_tokens
    for share in extent.lengths:
        tokens = int((context - _ANSWER_TOKENS) * share)
        for depth in extent.depths:
            tell("needle", len(cells) + 1, total)
            text, code = haystack(min(int(tokens * rate) - 200, _MOST_CHARACTERS), depth)
            answered = await asking.ask(text, max_tokens=_ANSWER_TOKENS)
            cells.append(NeedleMeasured(tokens=tokens, depth=depth, found=code in answered.text, code=answered.code))
    return tuple(cells)
