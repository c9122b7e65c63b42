"""Grammars that llama.cpp is given: a JSON answer, calls of tools. Pure, apart from asking llguidance whether it takes them.

llama.cpp drops a grammar that it cannot compile without a word and generates freely, so what is sent was compiled here first, and a keyword that cannot
be enforced is named before anything is generated. JSON is written without any whitespace between its tokens: a model that may write blanks can write
them for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
from llguidance import LLMatcher

from appliance.contracts.llm.v1.api import AnswerSchema, ToolSpec
from appliance.kit.errors import ApplianceError

HEADER: Final = "%llguidance {}\n"
TAG: Final = "<tool_call>"
END_TAG: Final = "</tool_call>"
MOST_CALLS: Final = 8
_COMPACT: Final = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_ANY_OBJECT: Final = '{"type":"object"}'
_MESSAGE_CHARACTERS: Final = 300
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def answer_grammar(schema: AnswerSchema) -> str:
    """The grammar under which every whole answer satisfies ``schema``.

    Raises:
        ApplianceError: ``schema_unsupported`` naming what the engine cannot enforce.
    """
    text = f"start: {json_rule(schema.schema)}"
    problem = problem_of(text)
    if problem:
        raise _unsupported(f"the answer schema {schema.name!r}", problem)
    return HEADER + text


def calls_grammar(tools: Sequence[ToolSpec], choice: str, *, tagged: bool) -> str:
    """The grammar of an answer that calls tools.

    Args:
        tools: those that may be called.
        choice: ``auto``, ``required``, or the name of one of ``tools``.
        tagged: calls stand in ``<tool_call>`` tags and there may be several; else the answer is one call and nothing more.

    Raises:
        ApplianceError: ``schema_unsupported`` when a strict tool's parameters cannot be enforced.
    """
    named = [tool for tool in tools if choice in ("auto", "required", tool.name)]
    rules = [
        f'call_{number}: {_quoted(_opening(tool.name))} args_{number} "}}"\nargs_{number}: {_arguments_rule(tool)}'
        for number, tool in enumerate(named)
    ]
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(named))))
    if tagged:
        least = "0" if choice == "auto" else "1"
        free = "TEXT " if choice == "auto" else ""
        rules.append(f'tagged: "{TAG}\\n" call "\\n{END_TAG}" /\\n?/')
        rules.append(f"start: {free}tagged{{{least},{MOST_CALLS}}}")
        if free:
            rules.append(f"TEXT: /(?s:.*)/ & ~/(?s:.*{TAG}.*)/")
    else:
        rules.append("start: call")
    text = "\n".join(rules)
    problem = problem_of(text)
    if problem:
        raise _unsupported("the tools of this request", problem)
    return HEADER + text


def json_rule(schema: Mapping[str, object]) -> str:
    """``%json`` with the schema on one line, whitespace off."""
    return "%json " + _encode({**schema, "x-guidance": _COMPACT}).decode()


@lru_cache(maxsize=128)
def problem_of(grammar: str) -> str:
    """Why llguidance does not take a grammar; empty when it does. What it would ignore counts as a problem."""
    refused, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return " ".join(str(message) for message in messages)[:_MESSAGE_CHARACTERS] or ("it is not taken" if refused else "")


def _arguments_rule(tool: ToolSpec) -> str:
    if not tool.parameters:
        return "%json " + _encode({**msgspec.json.decode(_ANY_OBJECT), "x-guidance": _COMPACT}).decode()
    rule = json_rule(tool.parameters)
    problem = problem_of(f"start: {rule}")
    if not problem:
        return rule
    if tool.strict:
        raise _unsupported(f"the strict tool {tool.name!r}", problem)
    return json_rule({"type": "object"})


def _opening(name: str) -> str:
    return f'{{"name": {_encode(name).decode()}, "arguments": '


def _quoted(text: str) -> str:
    return _encode(text).decode()


def _unsupported(what: str, problem: str) -> ApplianceError:
    hint = "leave out the named keywords, or ask a model whose schema support is `asked`: there the answer is checked and repaired"
    return ApplianceError("schema_unsupported", f"{what} cannot be enforced: {problem}", hint=hint)
