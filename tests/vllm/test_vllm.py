"""The chat port against a real vLLM: the conformance of generating engines, and what a chat needs end to end."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from appliance.contracts.llm.v1.api import AnswerSchema, ChatModel, ChatRequest, Finish, Message, Tokens, ToolCall, ToolCalls
from appliance.contracts.retrieval.v1.api import Passage
from appliance.hub.model_spec import ModelSpec
from appliance.testing.check_generating_model import SCHEMAS, TOOL, check_generating_model, collected, text_of
from appliance.testing.tiny_gguf import GROUNDED_ANSWER
from services.llm.bootstrap import build_chat_model
from services.llm.settings import LlmSettings

pytestmark = pytest.mark.vllm
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@pytest.fixture
async def model(served: ModelSpec) -> AsyncIterator[ChatModel]:
    built = await build_chat_model(served, LlmSettings(), {}, None)  # type: ignore[arg-type]
    yield built.model
    await built.close()


async def test_vllm_does_what_every_generating_model_must(model: ChatModel) -> None:
    await check_generating_model(model)


async def test_a_grounded_answer_streams_and_cites(model: ChatModel) -> None:
    passage = Passage(1, "d1", "contract.pdf", 1, "legal", 2, ("Term",), 0, 22, "The term is two years.")
    events = await collected(model, ChatRequest([Message("user", "how long?")], passages=[passage], grounded=True))
    assert text_of(events) == "".join(GROUNDED_ANSWER)
    assert sum(len(event.pieces) for event in events if isinstance(event, Tokens)) > 1
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.usage.completion_tokens) == ("stop", len(GROUNDED_ANSWER) + 1)


async def test_a_call_its_result_and_the_answer_after_it(model: ChatModel) -> None:
    asked = Message("user", "look it up")
    events = await collected(model, ChatRequest([asked], options={"max_tokens": 300, "seed": 5}, tools=[TOOL], tool_choice="required"))
    calls: tuple[ToolCall, ...] = next(event.calls for event in events if isinstance(event, ToolCalls))
    results = [Message("tool", '{"found": 1}', tool_call_id=call.id) for call in calls]
    after = await collected(
        model, ChatRequest([asked, Message("assistant", "", calls), *results], options={"max_tokens": 5}, tools=[TOOL], tool_choice="none")
    )
    assert isinstance(after[-1], Finish)


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
async def test_json_has_no_whitespace_that_the_model_may_choose(model: ChatModel, number: int) -> None:
    schema = AnswerSchema("answer", SCHEMAS[number])
    for seed in range(4):
        text = text_of(await collected(model, ChatRequest([Message("user", "go")], options={"max_tokens": 300, "seed": seed}, answer_schema=schema)))
        json.loads(text)
        assert not re.search(r"\s", _STRING.sub("", text)), text


async def test_a_repeated_prompt_is_answered_after_the_first_stream_was_left(model: ChatModel) -> None:
    request = ChatRequest([Message("user", "a long prefix " * 40)], options={"max_tokens": 200, "ignore_eos": True})
    async with aclosing(model.stream(request)) as events:
        async for event in events:
            if isinstance(event, Tokens):
                break
    finish = (await collected(model, ChatRequest(request.messages, options={"max_tokens": 2})))[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.prompt_tokens > 100
