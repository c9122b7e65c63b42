"""Grammars that llama.cpp is given: a JSON answer, calls of tools. Pure, apart from asking llguidance whether it takes them.

llama.cpp drops a grammar that it cannot compile without a word and generates freely, so what is sent was compiled here first. Grammars of schemas are
``appliance.schema.grammar``'s; keywords that they leave to validation are validated by who asked for the schema, except in a strict tool, which promises
all of them and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
from llguidance import LLMatcher

from appliance.contracts.llm.v1.api import AnswerSchema, ToolSpec
from appliance.kit.errors import ApplianceError
from appliance.schema.grammar import grammar_of

HEADER: Final = "%llguidance {}\n"
TAG: Final = "<tool_call>"
END_TAG: Final = "</tool_call>"
MOST_CALLS: Final = 8
_MESSAGE_CHARACTERS: Final = 300
_encode: Final = msgspec.json.Encoder().encode
_START: Final = "start: "


def answer_grammar(schema: AnswerSchema) -> str:
    """The grammar of a whole answer. Raises ``schema_invalid``, ``schema_unsupported`` from the schema gate."""
    return grammar_of(schema.schema).text


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
        raise _unsupported("the tools together", problem)
    return HEADER + text


@lru_cache(maxsize=128)
def problem_of(grammar: str) -> str:
    """Why llguidance does not take a grammar; empty when it does. What it would ignore counts as a problem."""
    refused, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return " ".join(str(message) for message in messages)[:_MESSAGE_CHARACTERS] or ("it is not taken" if refused else "")


def _arguments_rule(tool: ToolSpec) -> str:
    grammar = grammar_of({"type": "object", **tool.parameters})
    if tool.strict and grammar.unenforced:
        raise _unsupported(f"in the parameters of the strict tool {tool.name!r}", ", ".join(grammar.unenforced))
    return grammar.lark.removeprefix(_START)


def _opening(name: str) -> str:
    return f'{{"name": {_encode(name).decode()}, "arguments": '


def _quoted(text: str) -> str:
    return _encode(text).decode()


def _unsupported(what: str, problem: str) -> ApplianceError:
    return ApplianceError(
        "schema_unsupported", f"this engine cannot enforce {what}: {problem}", hint="leave these keywords out, or set strict to false"
    )
