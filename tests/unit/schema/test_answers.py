"""Answers that satisfy a schema, from models that say all kinds of things."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator

import pytest

from appliance.contracts.llm.v1.api import AnswerSchema, Capabilities, ChatRequest, Finish, Message, ModelEvent, Tokens, ToolCall, ToolCalls, Usage
from appliance.contracts.retrieval.v1.api import Passage
from appliance.kit.errors import ApplianceError
from appliance.schema.answers import MOST_ANSWER_BYTES, schema_answer
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
GOOD = '{"name":"x","count":2}'
ASKED = Capabilities(schema="asked")
GRAMMAR = Capabilities(schema="grammar")


class Conversation:
    """Says one prepared answer after the other, each by a real ``ScriptedChatModel``."""

    def __init__(self, *answers: ScriptedAnswer) -> None:
        self._answers = list(answers)
        self.requests: list[ChatRequest] = []

    def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        return ScriptedChatModel(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]).stream(request)


def says(*pieces: str, reason: str = "stop") -> ScriptedAnswer:
    return ScriptedAnswer(batches=tuple((piece,) for piece in pieces), reason=reason, usage=Usage(5, 3))


def request(schema: object = SCHEMA, *, strict: bool = True) -> ChatRequest:
    return ChatRequest((Message("user", "make one"),), answer_schema=AnswerSchema("thing", schema, strict))  # type: ignore[arg-type]


async def collected(model: Conversation, asked: ChatRequest, capabilities: Capabilities, rounds: int = 3) -> tuple[str, Finish]:
    events = [event async for event in schema_answer(model.stream, asked, capabilities, rounds)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    return "".join(piece for event in events if isinstance(event, Tokens) for piece in event.pieces), finish


def test_a_valid_answer_comes_in_one_round_and_a_constrained_model_is_told_the_schema() -> None:
    model = Conversation(says(GOOD))
    text, finish = asyncio.run(collected(model, request(), GRAMMAR))
    assert json.loads(text) == {"name": "x", "count": 2}
    assert finish.reason == "stop"
    assert '"minimum":1' in model.requests[0].messages[0].content
    held = model.requests[0].answer_schema
    assert held is not None
    assert held.schema["properties"]["name"]["maxLength"]  # type: ignore[index]


def test_errors_go_back_with_pointer_and_reason_and_usage_is_summed() -> None:
    model = Conversation(says('{"name":"x","count":0}'), says("Sorry:\n```json\n", GOOD, "\n```"))
    text, finish = asyncio.run(collected(model, request(), ASKED))
    assert text == GOOD
    assert finish.usage == Usage(10, 6)
    told = model.requests[1].messages[-1].content
    assert "/count" in told
    assert re.search("0 is less than the minimum", told)
    assert model.requests[1].messages[-2].content == '{"name":"x","count":0}'


def test_json_after_words_is_found() -> None:
    assert asyncio.run(collected(Conversation(says("Here you are: ", GOOD, " I hope it helps")), request(), ASKED))[0] == GOOD


@pytest.mark.parametrize(
    "garbage", ["", "no", "{" * 5_000, '{"name":"x","count":1e999}', '{"name": NaN, "count": 1}', '{"name":"\\ud800","count":1}', "[" * 100_000]
)
def test_garbage_in_every_round_is_schema_unsatisfied_with_the_last_errors(garbage: str) -> None:
    model = Conversation(says(garbage))
    with pytest.raises(ApplianceError) as caught:
        asyncio.run(collected(model, request(), ASKED, rounds=2))
    assert caught.value.code == "schema_unsatisfied"
    assert caught.value.context["errors"]
    assert len(model.requests) == 2


def test_an_endless_answer_is_left_and_does_not_fill_memory() -> None:
    model = Conversation(ScriptedAnswer(batches=(("x" * 100_000,),), endless=True))
    with pytest.raises(ApplianceError, match="schema_unsatisfied") as caught:
        asyncio.run(collected(model, request(), ASKED, rounds=2))
    assert f"{MOST_ANSWER_BYTES:,}" in caught.value.message
    assert len(model.requests[1].messages[-2].content) < 10_000


def test_with_a_grammar_pieces_pass_as_they_come() -> None:
    model = Conversation(says('{"name":"x",', '"count":2}'))

    async def run() -> list[ModelEvent]:
        return [event async for event in schema_answer(model.stream, request(), GRAMMAR)]

    assert asyncio.run(run())[:2] == [Tokens(('{"name":"x",',)), Tokens(('"count":2}',))]


def test_an_engine_that_breaks_its_promise_is_not_believed() -> None:
    with pytest.raises(ApplianceError, match="schema_unsatisfied"):
        asyncio.run(collected(Conversation(says('{"name":"x"}')), request(), GRAMMAR))


@pytest.mark.parametrize("cut", ["", "{", '{"na', '{"name":"a\\', '{"name":"x"', '{"name":"x","count":', GOOD[:-1]])
def test_a_constrained_answer_that_is_cut_gets_its_ending_and_says_that_it_was_cut(cut: str) -> None:
    text, finish = asyncio.run(collected(Conversation(says(cut, reason="length")), request(), GRAMMAR))
    assert text.startswith(cut)
    assert set(json.loads(text)) == {"name", "count"}
    assert finish.reason == "length"


def test_an_asked_answer_that_is_cut_is_a_failed_round() -> None:
    model = Conversation(says('{"name":"x', reason="length"), says(GOOD))
    assert asyncio.run(collected(model, request(), ASKED))[0] == GOOD
    assert "cut at the allowed length" in model.requests[1].messages[-1].content


def test_what_the_grammar_cannot_enforce_is_validated_and_repaired_before_anything_is_shown() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True}
    model = Conversation(says("[1,1]"), says("[1,2]"))
    assert asyncio.run(collected(model, request(schema), GRAMMAR))[0] == "[1,2]"


def test_a_model_without_schemas_is_refused_before_it_is_asked() -> None:
    model = Conversation(says(GOOD))
    with pytest.raises(ApplianceError, match="schema_unsupported"):
        asyncio.run(collected(model, request(), Capabilities(schema="none")))
    assert not model.requests


def test_a_bad_schema_is_refused_before_the_model_is_asked() -> None:
    model = Conversation(says(GOOD))
    with pytest.raises(ApplianceError, match=r"schema_unsupported.*'frmat'"):
        asyncio.run(collected(model, request({"type": "string", "frmat": "date"}), ASKED))
    assert not model.requests


def test_tool_calls_are_no_answer_and_pass() -> None:
    async def calling(_: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        yield ToolCalls((ToolCall("1", "look", "{}"),))
        yield Finish("tool_calls", Usage())

    async def run(capabilities: Capabilities) -> list[ModelEvent]:
        return [event async for event in schema_answer(calling, request(), capabilities)]

    for capabilities in (ASKED, GRAMMAR):
        assert [type(event) for event in asyncio.run(run(capabilities))] == [ToolCalls, Finish]


def test_a_schema_that_is_not_strict_goes_to_the_model_and_is_not_checked() -> None:
    model = Conversation(says("whatever"))
    assert asyncio.run(collected(model, request(strict=False), ASKED))[0] == "whatever"
    assert model.requests[0].answer_schema == request(strict=False).answer_schema


def test_without_a_schema_nothing_is_touched() -> None:
    model = Conversation(says("hello"))
    assert asyncio.run(collected(model, ChatRequest((Message("user", "hi"),)), Capabilities()))[0] == "hello"
    assert [message.role for message in model.requests[0].messages] == ["user"]


@pytest.mark.parametrize("capabilities", [ASKED, GRAMMAR])
def test_marks_of_sources_that_do_not_exist_are_removed_from_strings_only(capabilities: Capabilities) -> None:
    schema = {"type": "object", "properties": {"say": {"type": "string"}, "ids": {"type": "array", "items": {"type": "integer"}}}}
    model = Conversation(says('{"say":"so [1] and so [7].",', '"ids":[7]}'))
    passage = Passage(1, "d", "d.md", 1, "legal", None, (), 0, 2, "so")
    asked = ChatRequest((Message("user", "x"),), (passage,), grounded=True, answer_schema=AnswerSchema("s", schema))
    assert json.loads(asyncio.run(collected(model, asked, capabilities))[0]) == {"say": "so [1] and so.", "ids": [7]}
