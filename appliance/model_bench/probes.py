"""What a model is asked when it is measured: fixed questions, schemas and tools, and a text with a fact in it. Pure data; how to ask is in ``asking``.

Every prompt carries a mark of its own, so that neither the box's cache nor the engine's prefix cache answers.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_FILLER: Final = (
    "The night shift checked the pumps in hall {0} and found all gauges in the green range.",
    "Delivery {0} arrived before noon; the papers were complete and the seals unbroken.",
    "In week {0} the training on ladders was repeated for those who had missed it.",
    "The canteen served soup on day {0}, and the queue was shorter than usual.",
)
_numbers: Final = itertools.count(1)
_run: Final = secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class JsonCase:
    """A question with the schema that its answer must satisfy."""

    name: str
    question: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCase:
    """A request, and the name of the tool that it calls for."""

    question: str
    tool: str


def _object(**properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


JSON_CASES: Final = (
    JsonCase("person", "Make up a person.", _object(name={"type": "string"}, age={"type": "integer", "minimum": 0, "maximum": 120})),
    JsonCase("list", "Name three colours.", _object(colours={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 5})),
    JsonCase("choice", "Is water wet?", _object(answer={"enum": ["yes", "no", "unknown"]}, sure={"type": "boolean"})),
    JsonCase(
        "nested", "Describe an order of two items.",
        _object(id={"type": "string", "maxLength": 40}, items={"type": "array", "maxItems": 4, "items": _object(name={"type": "string", "maxLength": 60}, count={"type": "integer"})}),
    ),
    JsonCase("number", "What is the boiling point of water in °C?", _object(value={"type": "number"}, unit={"const": "°C"})),
)  # fmt: skip

TOOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "get_weather": _object(city={"type": "string"}),
    "add_numbers": _object(a={"type": "number"}, b={"type": "number"}),
    "create_reminder": _object(text={"type": "string"}, minutes={"type": "integer", "minimum": 1}),
}
_TOLD: Final = {
    "get_weather": "The weather in a city now.",
    "add_numbers": "The sum of two numbers.",
    "create_reminder": "Remind the user of something in some minutes.",
}
TOOL_CASES: Final = (
    ToolCase("What is the weather in Kazan right now? Use a tool.", "get_weather"),
    ToolCase("Add 1234.5 and 8765.25 with the tool.", "add_numbers"),
    ToolCase("Remind me in 15 minutes to call the workshop.", "create_reminder"),
    ToolCase("Какая сейчас погода в Перми? Вызови инструмент.", "get_weather"),
    ToolCase("Сложи 17 и 25 инструментом.", "add_numbers"),
    ToolCase("Напомни через 30 минут проверить давление.", "create_reminder"),
)


def fresh(text: str) -> str:
    """``text`` with a mark that no earlier prompt has."""
    return f"[{_run}-{next(_numbers)}] {text}"


def wire_tools() -> list[dict[str, Any]]:
    """All tools in OpenAI's form."""
    return [{"type": "function", "function": {"name": name, "description": _TOLD[name], "parameters": schema}} for name, schema in TOOLS.items()]


def haystack(characters: int, depth: float) -> tuple[str, str]:
    """A text of about ``characters`` with a fact at ``depth`` (0–1), ending in the question; and the answer."""
    locker, code = 1000 + secrets.randbelow(9000), str(100_000 + secrets.randbelow(900_000))
    fact = f"The code of locker {locker} is {code}."
    sentences: list[str] = []
    size = 0
    for number in itertools.count(1):
        if size >= characters:
            break
        sentences.append(_FILLER[number % len(_FILLER)].format(number))
        size += len(sentences[-1]) + 1
    sentences.insert(round(depth * len(sentences)), fact)
    question = f"What is the code of locker {locker}? Answer with the number only."
    return fresh(" ".join(sentences) + "\n\n" + question), code
