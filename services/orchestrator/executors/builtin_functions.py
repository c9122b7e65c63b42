"""Functions that every box has: small, useful in demos and benches, and examples of how one is written."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import Counter
from typing import Any, Final

from appliance.contracts.functions.v1.api import FunctionContext, RefusedError, function

CODE_FEATURES: Final = "code.features"
CODE_SECONDS: Final = 20.0
_MOST_STEPS: Final = 10_000
_MOST_SLEEP_SECONDS: Final = 24 * 3600.0
_WORD: Final = re.compile(r"\w+", re.UNICODE)


@function(
    "math.sum", input_schema={"type": "object", "required": ["numbers"], "properties": {"numbers": {"type": "array", "items": {"type": "number"}}}}
)
async def add_up(_ctx: FunctionContext, data: Any) -> dict[str, float]:
    """``{"numbers": […]}`` → ``{"sum": …}``, exact for floats."""
    return {"sum": math.fsum(_numbers(_field(data, "numbers", list)))}


@function("text.word_count", input_schema={"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}})
async def count_words(_ctx: FunctionContext, data: Any) -> dict[str, int]:
    """``{"text": "…"}`` → ``{"words": …}``."""
    return {"words": len(_WORD.findall(_field(data, "text", str)))}


@function("text.statistics", input_schema={"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}})
def describe_text(_ctx: object, data: Any) -> dict[str, Any]:
    """Characters, words, lines, distinct words, the ten most frequent words of ``text``."""
    text = _field(data, "text", str)
    words = [word.lower() for word in _WORD.findall(text)]
    counted = Counter(words)
    return {
        "characters": len(text),
        "lines": len(text.splitlines()),
        "words": len(words),
        "distinctWords": len(counted),
        "frequent": [{"word": word, "count": count} for word, count in counted.most_common(10)],
    }


@function(
    CODE_FEATURES, timeout_seconds=CODE_SECONDS, input_schema={"type": "object", "required": ["source"], "properties": {"source": {"type": "string"}}}
)
def read_code(_ctx: object, data: Any) -> dict[str, Any]:
    """``{"source": "…"}`` → features of its syntax tree; the first half of ``code_analysis`` (``code_analysis.features``)."""
    from services.orchestrator.executors.code_analysis.features import extract_features  # a worker starts without it

    return extract_features(data)


@function("hash.sha256", input_schema={"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}})
async def digest(_ctx: FunctionContext, data: Any) -> dict[str, str]:
    """SHA-256 of ``text`` in UTF-8, hexadecimal."""
    return {"sha256": hashlib.sha256(_field(data, "text", str).encode("utf-8", "surrogatepass")).hexdigest()}


@function("time.sleep_until", timeout_seconds=_MOST_SLEEP_SECONDS)
async def sleep_until(ctx: FunctionContext, data: Any) -> dict[str, float]:
    """Wait until ``at`` (Unix seconds), or for ``seconds`` after the first attempt began; the end stays the same in later attempts."""
    data = data if isinstance(data, dict) else {}
    until = _number(data["at"]) if "at" in data else await ctx.step("until", lambda: time.time() + _number(_field(data, "seconds", int, float)))
    if until - time.time() > _MOST_SLEEP_SECONDS:
        raise RefusedError("at most a day can be slept")
    await asyncio.sleep(max(0.0, until - time.time()))
    return {"slept_until": until}


@function("workflow.steps")
async def run_steps(ctx: FunctionContext, data: Any) -> dict[str, int]:
    """``{"steps": n, "pauseSeconds": s}``: n steps that do nothing (or wait); for benches and demonstrations."""
    data = data if isinstance(data, dict) else {}
    count, pause = int(_number(data.get("steps", 3))), _number(data.get("pauseSeconds", 0.0))
    if not 0 <= count <= _MOST_STEPS:
        raise RefusedError(f"steps is 0 to {_MOST_STEPS}")
    for number in range(count):
        await (ctx.step(f"step-{number + 1}", _pause, number + 1, pause) if pause else ctx.step(f"step-{number + 1}", _same, number + 1))
    return {"steps": count}


def _same(number: int) -> int:
    return number


async def _pause(number: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return number


def _numbers(values: list[Any]) -> list[float]:
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(f"a number is needed, not {type(value).__name__}")
    return value


def _field(data: Any, name: str, *kinds: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(name), kinds):
        raise RefusedError(f"the input needs {name!r} ({' or '.join(kind.__name__ for kind in kinds)})")
    return data[name]
