"""The words between us and a model about a schema: what is asked, how JSON is found in what comes back, and how errors are told. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from appliance.contracts.llm.v1.api import ChatRequest, Message
from appliance.schema.gate import AdmittedSchema, Violation

_ASK: Final = (
    "Answer with one JSON value that satisfies this JSON Schema, and with nothing else: no explanation, no Markdown, no code fence.\n"
    "Use only what the conversation and its sources say; leave optional fields out when they are not known.\nJSON Schema:\n"
)
_AGAIN: Final = "Your answer does not satisfy the JSON Schema:\n{errors}\nAnswer again with the whole corrected JSON value and nothing else."
_MOST_TOLD: Final = 8_000  # characters of a schema
_MOST_REPEATED: Final = 8_000
_FENCE: Final = re.compile(r"```[a-zA-Z]{0,10}[ \t]*\n(.*?)```", re.DOTALL)
_STARTS: Final = re.compile(r"[{\[]")
_MOST_STARTS: Final = 8
_decoder: Final = json.JSONDecoder()


def told(request: ChatRequest, admitted: AdmittedSchema) -> ChatRequest:
    """The request to a constrained model with the schema at the end of its question: titles and descriptions help it, a long schema it keeps unseen.

    Not in a system message: many chat templates take only one, and that of the sources comes first. Models that are only asked are told by their adapter.
    """
    text = json.dumps(admitted.schema, ensure_ascii=False, separators=(",", ":"))
    messages = list(request.messages)
    last = next((number for number in range(len(messages) - 1, -1, -1) if messages[number].role == "user"), None)
    if last is None or len(text) > _MOST_TOLD:
        return request
    messages[last] = replace(messages[last], content=f"{messages[last].content}\n\n{_ASK}{text}")
    return replace(request, messages=tuple(messages))


def repair_messages(answer: str, violations: Sequence[Violation]) -> tuple[Message, Message]:
    """The failed answer and what is wrong with it: each error with its JSON pointer and reason."""
    kept = answer if len(answer) <= _MOST_REPEATED else answer[:_MOST_REPEATED] + "…"
    errors = "\n".join(f"- {violation}" for violation in violations)
    return Message("assistant", kept or "(nothing)"), Message("user", _AGAIN.format(errors=errors))


def extracted(text: str) -> str:
    """The JSON in an answer that was only asked to be JSON: alone, in a code fence, or after some words; the text itself when there is none."""
    stripped = text.strip()
    if fenced := _FENCE.search(stripped):
        stripped = fenced.group(1).strip()
    if _is_json(stripped):
        return stripped
    for number, start in enumerate(_STARTS.finditer(stripped)):
        if number >= _MOST_STARTS:
            break
        try:
            _, end = _decoder.raw_decode(stripped, start.start())
        except (ValueError, RecursionError):
            continue
        return stripped[start.start() : end]
    return stripped


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
