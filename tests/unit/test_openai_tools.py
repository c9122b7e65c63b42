"""Tool calls, answer schemas and deadlines over the OpenAI wire, both ways."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from appliance.contracts.llm.v1.api import (
    AnswerSchema,
    Capabilities,
    ChatRequest,
    Finish,
    Message,
    ModelEvent,
    Tokens,
    ToolCall,
    ToolCalls,
    ToolSpec,
)  # fmt: skip
from appliance.kit.errors import ApplianceError
from appliance.testing.scripted_openai import Mode, Script, ScriptedOpenAi
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.openai_tool_calls import MAX_BYTES, MAX_CALLS, CallGatherer, CallPiece, FunctionPiece
from services.llm.openai_wire import retry_after
from services.llm.settings import LlmSettings, OpenAiEndpoint

ABLE = Capabilities(tools=True, schema="grammar")
WEATHER = ToolSpec("weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}}, strict=True)
PIECES = (
    {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city":'}},
    {"index": 1, "id": "b", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Тверь"}'}},
    {"index": 0, "function": {"arguments": ' "Омск"}'}},
)
WHOLE = (
    {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Омск"}'}},
    {"id": "b", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Тверь"}'}},
)
BOTH = ToolCalls((ToolCall("a", "weather", '{"city": "Омск"}'), ToolCall("b", "weather", '{"city": "Тверь"}')))


def asking(*, tools: Sequence[ToolSpec] = (WEATHER,), **more: object) -> ChatRequest:
    return ChatRequest([Message("user", "hi")], tools=tools, **more)  # type: ignore[arg-type]


async def told(script: Script, request: ChatRequest, can: Capabilities = ABLE) -> tuple[list[ModelEvent], dict[str, object]]:
    """The events, and the body that the endpoint was sent."""
    async with ScriptedOpenAi(script) as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), LlmSettings(), can) as model:
        events = [event async for event in model.stream(request)]
        return events, upstream.requests[-1]


@pytest.mark.parametrize("mode", ["honest", "byte_by_byte", "crlf"])
async def test_streamed_calls_come_out_whole_and_in_order(mode: Mode) -> None:
    events, body = await told(Script(pieces=("let me look",), calls=PIECES, finish_reason="tool_calls", mode=mode, cached=5), asking())
    assert events[-2] == BOTH
    assert isinstance(events[-1], Finish)
    assert (events[-1].reason, events[-1].usage.cached_tokens) == ("tool_calls", 5)
    assert Tokens(("let me look",)) in events
    assert body["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": dict(WEATHER.parameters), "strict": True}}
    ]
    assert body["tool_choice"] == "auto"


async def test_calls_of_a_whole_answer_come_out_the_same() -> None:
    events, _ = await told(Script(pieces=(), calls=WHOLE, finish_reason="tool_calls"), asking(options={"stream": False}))
    assert events[0] == BOTH
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "tool_calls"


async def test_the_reason_is_tool_calls_exactly_when_there_are_calls() -> None:
    events, _ = await told(Script(calls=PIECES, finish_reason="stop"), asking())
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "tool_calls"
    events, _ = await told(Script(finish_reason="tool_calls"), asking())
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "stop"


async def test_calls_that_were_cut_off_are_no_calls() -> None:
    events, _ = await told(Script(calls=PIECES[:2], finish_reason="length"), asking())
    assert not any(isinstance(event, ToolCalls) for event in events)
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "length"


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_of_tools_that_nobody_offered_are_refused(stream: bool) -> None:
    with pytest.raises(ApplianceError, match="nobody offered"):
        await told(Script(calls=WHOLE), asking(tools=(), options={"stream": stream}))


@pytest.mark.parametrize(
    ("choice", "sent"), [("none", "none"), ("required", "required"), ("weather", {"type": "function", "function": {"name": "weather"}})]
)
async def test_the_choice_of_a_tool_is_told(choice: str, sent: object) -> None:
    _, body = await told(Script(), asking(tool_choice=choice))
    assert body["tool_choice"] == sent


async def test_a_request_without_tools_says_nothing_about_them() -> None:
    _, body = await told(Script(), asking(tools=()))
    assert not {"tools", "tool_choice", "response_format"} & body.keys()


async def test_calls_and_results_go_back_into_the_conversation() -> None:
    call = ToolCall("a", "weather", '{"city": "Омск"}')
    messages = [Message("user", "hi"), Message("assistant", "", (call,)), Message("tool", "-3", tool_call_id="a")]
    for grounded in (False, True):
        _, body = await told(Script(), ChatRequest(messages, tools=(WEATHER,), grounded=grounded))
        sent = body["messages"]
        assert isinstance(sent, list)
        assert sent[-2:] == [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Омск"}'}}],
            },
            {"role": "tool", "content": "-3", "tool_call_id": "a"},
        ]


async def test_a_schema_is_sent_in_the_form_that_servers_keep_and_never_as_guided_json() -> None:
    schema = AnswerSchema("план работ", {"type": "object"})
    _, body = await told(Script(), asking(tools=(), answer_schema=schema))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "____ _____".replace(" ", "_"), "schema": {"type": "object"}, "strict": True},
    }
    assert not any("guided" in key for key in body)
    assert body["messages"] == [{"role": "user", "content": "hi"}]


async def test_an_endpoint_that_is_only_asked_is_told_the_schema_in_words_too() -> None:
    schema = AnswerSchema("plan", {"type": "object", "title": "План"})
    messages = [Message("system", "Be brief."), Message("user", "hi")]
    _, body = await told(Script(), ChatRequest(messages, answer_schema=schema), Capabilities(schema="asked"))
    sent = body["messages"]
    assert isinstance(sent, list)
    assert [message["role"] for message in sent] == ["system", "user"]
    assert sent[0]["content"].startswith("Be brief.")
    assert '"title":"План"' in sent[0]["content"]


async def test_what_an_endpoint_cannot_do_is_refused_before_it_is_asked() -> None:
    async with ScriptedOpenAi() as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), LlmSettings(), Capabilities()) as model:
        for request, code in ((asking(tools=(), answer_schema=AnswerSchema("x", {})), "schema_unsupported"), (asking(), "invalid_request")):
            with pytest.raises(ApplianceError, match=code):
                await anext(model.stream(request))
        assert upstream.requests == []


def test_calls_without_index_or_with_one_index_for_all_are_told_apart() -> None:
    for index in (None, 0):
        gatherer = CallGatherer()
        gatherer.feed(
            [
                CallPiece(index, "a", FunctionPiece("f", "{")),
                CallPiece(index, None, FunctionPiece(None, "}")),
                CallPiece(index, "b", FunctionPiece("g")),
            ]
        )
        assert gatherer.finished("tool_calls") == ToolCalls((ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")))


def test_arguments_given_as_an_object_become_text_and_every_call_has_an_id_of_its_own() -> None:
    gatherer = CallGatherer()
    gatherer.feed(
        [CallPiece(0, "same", FunctionPiece("f", {"a": 1})), CallPiece(1, "same", FunctionPiece("f")), CallPiece(2, None, FunctionPiece("f"))]
    )
    found = gatherer.finished("stop")
    assert found is not None
    assert found.calls[0].arguments == '{"a":1}'
    assert len({call.id for call in found.calls}) == 3


@pytest.mark.parametrize(
    "pieces",
    [
        [CallPiece(number, None, FunctionPiece("f")) for number in range(MAX_CALLS + 1)],
        [CallPiece(0, None, FunctionPiece("f", "x" * 70_000))] * (MAX_BYTES // 70_000 + 1),
        [CallPiece(0, None, FunctionPiece("", ""))] * (MAX_BYTES // 60),
    ],
)
def test_calls_are_bounded_in_number_and_size(pieces: list[CallPiece]) -> None:
    with pytest.raises(ApplianceError, match="upstream_failed"):
        CallGatherer().feed(pieces)


def test_a_call_without_a_name_is_garbage() -> None:
    gatherer = CallGatherer()
    gatherer.feed([CallPiece(0, "a", FunctionPiece(None, "{}"))])
    with pytest.raises(ApplianceError, match="without a name"):
        gatherer.finished("tool_calls")


async def test_a_piece_that_is_no_call_is_garbage() -> None:
    with pytest.raises(ApplianceError, match="upstream_failed"):
        await told(Script(calls=({"index": "zero"},)), asking())


async def test_a_deadline_bounds_every_part_of_an_answer() -> None:
    patient = LlmSettings()
    for script in (Script(mode="hang"), Script(mode="stall"), Script(endless=True, delay_seconds=0.01)):
        async with ScriptedOpenAi(script) as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), patient) as model:
            started = time.monotonic()
            with pytest.raises(ApplianceError, match="upstream_timeout"):
                async for _ in model.stream(ChatRequest([Message("user", "hi")], deadline=started + 0.2)):
                    pass
            assert time.monotonic() - started < 10


async def test_a_deadline_that_has_passed_asks_nobody() -> None:
    async with ScriptedOpenAi() as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), LlmSettings()) as model:
        with pytest.raises(ApplianceError, match="upstream_timeout"):
            await anext(model.stream(ChatRequest([Message("user", "hi")], deadline=time.monotonic() - 1)))
        assert upstream.connections == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2), ("0.5", 0.5), (" 7 ", 7), ("99999999", 3600), ("-1", None), ("soon", None), ("", None), (None, None), ("٣", None)],
)
def test_only_sane_seconds_of_retry_after_are_believed(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds
