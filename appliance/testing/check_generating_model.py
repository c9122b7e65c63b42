"""What every engine that really generates must do, whatever its model says; run it on llama.cpp with a tiny GGUF and on vLLM with the same tiny Llama.

Beside ``check_chat_model``, which needs a subject that says a given text. A model of random weights does that as little as a large one; what is checked
here is how it says things: it streams, ends once, counts, stops, obeys its seed, its limits, its grammar, and forgets nobody when one leaves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from jsonschema import Draft202012Validator

from appliance.contracts.llm.v1.api import AnswerSchema, ChatModel, ChatRequest, Finish, Message, ModelEvent, Tokens, ToolCalls, ToolSpec
from appliance.kit.errors import ApplianceError

PATIENCE_SECONDS: Final = 180.0
"""For each step; not a measure of speed: machines that test are busy."""
_SEEDS: Final = range(8)
_STREAMS: Final = 8
SCHEMAS: Final[Sequence[Mapping[str, Any]]] = (
    {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}}, "required": ["answer", "sure"], "additionalProperties": False},
    {
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1, "maxItems": 2},
            "total": {"type": "integer", "minimum": 0, "maximum": 999},
        },
        "required": ["steps", "total"],
        "additionalProperties": False,
        "$defs": {"step": {"type": "object", "properties": {"title": {"type": "string", "maxLength": 8}}, "required": ["title"], "additionalProperties": False}},
    },
)  # fmt: skip
TOOL: Final = ToolSpec(
    "find",
    "finds a document",
    {"type": "object", "properties": {"query": {"enum": ["contract", "invoice"]}}, "required": ["query"], "additionalProperties": False},
    strict=True,
)


async def check_generating_model(model: ChatModel) -> None:
    """Raises AssertionError naming what is broken. ``model`` serves several streams at once and states its ``max_context``."""
    await model.health()
    await _streams_and_counts(model)
    await _stops_at_its_limit(model)
    await _stops_at_a_word(model)
    await _obeys_its_seed(model)
    await _streams_do_not_mix(model)
    await _closing_frees_its_place(model)
    await _refuses_what_is_too_long(model)
    await _keeps_its_deadline(model)
    if model.capabilities.schema == "grammar":
        await _keeps_the_schema(model)
    if model.capabilities.tools:
        await _calls_a_tool_when_it_must(model)
    await model.health()


async def _streams_and_counts(model: ChatModel) -> None:
    events = await collected(model, _request("hello?", max_tokens=40, ignore_eos=True, seed=1))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert sum(isinstance(event, Tokens) for event in events) > 1, "40 tokens came in one piece: it does not stream"
    assert finish.usage.completion_tokens == 40, f"{finish.usage.completion_tokens} tokens counted in place of 40"
    assert finish.usage.prompt_tokens > 0, "no prompt tokens counted"
    again = (await collected(model, _request("hello?", max_tokens=1, seed=1)))[-1]
    assert isinstance(again, Finish)
    assert again.usage.prompt_tokens == finish.usage.prompt_tokens, "the same prompt was counted differently"


async def _stops_at_its_limit(model: ChatModel) -> None:
    events = await collected(model, _request("hello?", max_tokens=3, ignore_eos=True, seed=2))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.usage.completion_tokens) == ("length", 3), f"{finish} after max_tokens = 3"


async def _stops_at_a_word(model: ChatModel) -> None:
    for seed in _SEEDS:
        whole = text_of(await collected(model, _request("hello?", max_tokens=60, ignore_eos=True, seed=seed, temperature=0.7)))
        word = whole[len(whole) // 2 : len(whole) // 2 + 2]
        if len(word) == 2 and word.isascii() and word.isprintable():
            break
    else:
        raise AssertionError("no text of two plain characters in eight answers")
    events = await collected(model, _request("hello?", max_tokens=60, ignore_eos=True, seed=seed, temperature=0.7, stop=[word]))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert word not in text_of(events), f"the stop word {word!r} was said"
    assert finish.reason == "stop", f"reason {finish.reason!r} at a stop word"


async def _obeys_its_seed(model: ChatModel) -> None:
    async def said(**options: object) -> str:
        return text_of(await collected(model, _request("the answer?", max_tokens=24, ignore_eos=True, **options)))

    assert await said(temperature=0, seed=1) == await said(temperature=0, seed=1), "temperature 0 gave two answers"
    assert await said(temperature=1, seed=11) == await said(temperature=1, seed=11), "one seed gave two answers"
    assert len({await said(temperature=1, seed=seed) for seed in _SEEDS}) > 1, "the seed changes nothing"


async def _streams_do_not_mix(model: ChatModel) -> None:
    requests = [_request(f"question {number} " * (number + 1), max_tokens=24, ignore_eos=True, temperature=0, seed=1) for number in range(_STREAMS)]
    alone = [text_of(await collected(model, request)) for request in requests]
    together = [text_of(events) for events in await asyncio.gather(*(collected(model, request) for request in requests))]
    # sums in another order may tip a single token; a mixed stream differs from its first token on
    same = sum(one[:8] == other[:8] for one, other in zip(alone, together, strict=True))
    assert same >= _STREAMS - 1, f"only {same} of {_STREAMS} answers begin as they do alone"


async def _closing_frees_its_place(model: ChatModel) -> None:
    """As many long streams as one likes, closed after their first words, leave room for a short one."""
    long = model.capabilities.max_context // 2 or 256

    async def leave(number: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(model.stream(_request("go on", max_tokens=long, ignore_eos=True, seed=number))) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    break

    await asyncio.gather(*(leave(number) for number in range(2 * _STREAMS)))
    assert isinstance((await collected(model, _request("hello?", max_tokens=2)))[-1], Finish)


async def _refuses_what_is_too_long(model: ChatModel) -> None:
    words = 2 * (model.capabilities.max_context or 1_000_000)
    try:
        events = await collected(model, _request("hello " * words, max_tokens=2))
    except ApplianceError as error:
        assert error.code == "context_length_exceeded", f"{error.code} in place of context_length_exceeded: {error.message}"
    else:
        raise AssertionError(f"a prompt of {words} words was answered: {events[-1]}")


async def _keeps_its_deadline(model: ChatModel) -> None:
    request = ChatRequest([Message("user", "go on")], options={"max_tokens": 64, "ignore_eos": True}, deadline=time.monotonic() + 0.001)
    try:
        await collected(model, request)
    except ApplianceError as error:
        assert error.code == "upstream_timeout", f"{error.code} in place of upstream_timeout"
    else:
        raise AssertionError("a deadline of a millisecond was not noticed")


async def _keeps_the_schema(model: ChatModel) -> None:
    for number, schema in enumerate(SCHEMAS):
        for seed in _SEEDS:
            wanted = AnswerSchema(f"schema_{number}", schema)
            request = ChatRequest([Message("user", "answer")], options={"seed": seed, "temperature": 1.0, "max_tokens": 300}, answer_schema=wanted)
            events = await collected(model, request)
            finish = events[-1]
            assert isinstance(finish, Finish)
            assert finish.reason == "stop", f"{finish.reason} under schema {number}"
            text = text_of(events)
            problem = next(iter(Draft202012Validator(schema).iter_errors(json.loads(text))), None)
            assert problem is None, f"{text[:200]!r} is not what schema {number} wants: {problem}"
            assert text == text.strip(), "whitespace around the JSON"


async def _calls_a_tool_when_it_must(model: ChatModel) -> None:
    for choice in ("required", TOOL.name):
        request = ChatRequest([Message("user", "look it up")], options={"seed": 3, "max_tokens": 300}, tools=[TOOL], tool_choice=choice)
        events = await collected(model, request)
        finish, calls = events[-1], [call for event in events if isinstance(event, ToolCalls) for call in event.calls]
        assert isinstance(finish, Finish)
        assert finish.reason == "tool_calls", f"{finish.reason} in place of tool_calls with tool_choice {choice}"
        assert calls, f"no calls with tool_choice {choice}"
        for call in calls:
            assert call.name == TOOL.name, f"a call of {call.name!r}"
            assert call.id, "a call without an id"
            assert Draft202012Validator(dict(TOOL.parameters)).is_valid(json.loads(call.arguments)), f"arguments {call.arguments!r}"
    await collected(model, ChatRequest([Message("user", "no tools")], options={"seed": 3, "max_tokens": 20}, tools=[TOOL]))


async def collected(model: ChatModel, request: ChatRequest) -> list[ModelEvent]:
    """All events of one answer, checked for their order."""
    events: list[ModelEvent] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in model.stream(request):
            assert not any(isinstance(earlier, Finish) for earlier in events), "something came after Finish"
            events.append(event)
    assert events, "no events at all"
    assert isinstance(events[-1], Finish), f"ended with {events[-1]}"
    return events


def text_of(events: Sequence[ModelEvent]) -> str:
    """The text of an answer."""
    return "".join(piece for event in events if isinstance(event, Tokens) for piece in event.pieces)


def _request(text: str, **options: object) -> ChatRequest:
    return ChatRequest([Message("user", text)], options=options)
