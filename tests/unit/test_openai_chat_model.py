"""The OpenAI adapter against an upstream that does everything wrong, and the conformance of adapter and fake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import ChatRequest, Finish, Message, Tokens, Usage
from appliance.kit.errors import ApplianceError
from appliance.testing.check_chat_model import Subject, Wanted, check_chat_model
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from appliance.testing.scripted_openai import Mode, Script, ScriptedOpenAi
from services.llm.openai_chat_model import OpenAiChatModel
from services.llm.openai_wire import EventReader, counted, decode_completion, finish_reason
from services.llm.settings import LlmSettings, OpenAiEndpoint

IMPATIENT = LlmSettings(
    connect_timeout_seconds=1,
    first_byte_timeout_seconds=0.3,
    between_bytes_timeout_seconds=0.3,
    total_timeout_seconds=2,
    health_timeout_seconds=0.3,
    max_line_bytes=100_000,
)
FAILURES = {
    "upstream_failed": Script(mode="error_status", status=500),
    "upstream_timeout": Script(mode="error_status", status=504),
    "context_length_exceeded": Script(mode="error_status", status=400, error={"message": "too long", "code": "context_length_exceeded"}),
}


def script_for(wanted: Wanted) -> Script:
    if wanted.failure is not None:
        return FAILURES[wanted.failure]
    return Script(pieces=wanted.pieces, finish_reason=wanted.reason, endless=wanted.endless, delay_seconds=0.01 if wanted.endless else 0)


@asynccontextmanager
async def adapter(wanted: Wanted) -> AsyncIterator[Subject]:
    async with ScriptedOpenAi(script_for(wanted)) as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), IMPATIENT) as model:
        yield Subject(model, upstream.departed.wait)


@asynccontextmanager
async def fake(wanted: Wanted) -> AsyncIterator[Subject]:
    batches = (wanted.pieces,) if wanted.pieces else ()
    model = ScriptedChatModel(ScriptedAnswer(batches, reason=wanted.reason, fail_first=wanted.failure, endless=wanted.endless, pause_seconds=0.01))
    yield Subject(model, model.cancelled.wait)


async def test_the_adapter_keeps_the_promises_of_a_chat_model() -> None:
    await check_chat_model(adapter)


async def test_the_fake_keeps_the_promises_of_a_chat_model() -> None:
    await check_chat_model(fake)


async def answer(script: Script, **options: object) -> tuple[str, Finish | None]:
    async with ScriptedOpenAi(script) as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), IMPATIENT) as model:
        text, finish = "", None
        async for event in model.stream(ChatRequest([Message("user", "hi")], options=options)):
            if isinstance(event, Tokens):
                text += "".join(event.pieces)
            elif isinstance(event, Finish):
                finish = event
        return text, finish


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("hang", "upstream_timeout"),
        ("stall", "upstream_timeout"),
        ("reset", "upstream_failed"),
        ("garbage", "upstream_failed"),
        ("wrong_type", "upstream_failed"),
        ("invalid_utf8", "upstream_failed"),
        ("endless_line", "upstream_failed"),
        ("error_midway", "upstream_failed"),
        ("no_finish", "upstream_failed"),
    ],
)
async def test_a_hostile_stream_becomes_one_of_our_errors(mode: Mode, code: str) -> None:
    with pytest.raises(ApplianceError) as raised:
        await answer(Script(mode=mode))
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("hang", "upstream_timeout"),
        ("reset", "upstream_failed"),
        ("garbage", "upstream_failed"),
        ("wrong_length", "upstream_failed"),
        ("wrong_type", "upstream_failed"),
    ],
)
async def test_a_hostile_whole_answer_becomes_one_of_our_errors(mode: Mode, code: str) -> None:
    with pytest.raises(ApplianceError) as raised:
        await answer(Script(mode=mode), stream=False)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "overloaded"),
        (500, "upstream_failed"),
        (401, "upstream_failed"),
        (400, "invalid_request"),
        (504, "upstream_timeout"),
        (302, "upstream_failed"),
    ],
)
async def test_a_refusal_is_translated(status: int, code: str) -> None:
    with pytest.raises(ApplianceError) as raised:
        await answer(Script(mode="error_status", status=status))
    assert raised.value.code == code


@pytest.mark.parametrize("mode", ["byte_by_byte", "crlf", "slow"])
async def test_the_way_the_network_cuts_does_not_matter(mode: Mode) -> None:
    text, finish = await answer(Script(pieces=("При", "вет ", "🌍"), mode=mode, delay_seconds=0.02 if mode == "slow" else 0))
    assert text == "Привет 🌍"
    assert finish is not None
    assert finish.usage.prompt_tokens == 7


def test_every_cut_gives_the_same_chunks() -> None:
    stream = 'data: {"choices":[{"delta":{"content":"я"}}]}\r\n\r\n: comment\n\ndata: {"choices":[],\ndata: "usage":{"prompt_tokens":3,"completion_tokens":1}}\n\ndata: [DONE]\n\n'.encode()
    for cut in range(len(stream)):
        reader = EventReader(10_000)
        chunks = reader.feed(stream[:cut]) + reader.feed(stream[cut:])
        assert [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta] == ["я"]
        assert chunks[-1].usage is not None
        assert reader.done


@pytest.mark.parametrize(
    ("wire", "tokens"),
    [
        ("-5", 0),
        ("1000000000000000000000000000000", 2**31 - 1),
        ("1e999", 2**31 - 1),
        ("-1e999", 0),
        ("9" * 5000, 2**31 - 1),
        ('"12"', 0),
        ("null", 0),
        ("true", 0),
        ("{}", 0),
        ("7.9", 7),
        ("7", 7),
    ],
)
def test_numbers_of_usage_are_clamped_whatever_they_are(wire: str, tokens: int) -> None:
    body = (
        '{"choices":[{"message":{"content":"x"}}],"usage":'
        f'{{"prompt_tokens":{wire},"completion_tokens":{wire},"prompt_tokens_details":{{"cached_tokens":{wire}}}}}}}'
    )
    assert counted(decode_completion(body.encode()).usage) == Usage(tokens, tokens, tokens)
    (chunk,) = EventReader(10_000_000).feed(b"data: " + body.encode() + b"\n\n")
    assert counted(chunk.usage) == Usage(tokens, tokens, tokens)


@pytest.mark.parametrize("usage", ["5", "[]", "null", '"x"', '{"prompt_tokens_details": 3}', "[" * 50 + "]" * 50])
def test_usage_of_any_shape_never_raises(usage: str) -> None:
    found = counted(decode_completion(b'{"choices":[{}],"usage":' + usage.encode() + b"}").usage)
    assert found in (None, Usage(0, 0, 0))


def test_reasons_are_those_of_openai() -> None:
    for reason in ("stop", "length", "content_filter", "tool_calls", "function_call"):
        assert finish_reason(reason) == reason
    assert [finish_reason(given) for given in ("eos", "<script>", 5, {"a": 1}, ["length"])] == ["stop"] * 5
    assert [finish_reason(given) for given in (None, "")] == [None, None]


@pytest.mark.parametrize("piece", [b"data:x\n", b"data:\n", b"x", b"data:" + b"y" * 50 + b"\n"])
def test_an_endless_event_is_refused_at_once_and_in_linear_time(piece: bytes) -> None:
    reader = EventReader(1024 * 1024)
    started = time.process_time()
    with pytest.raises(ApplianceError, match="upstream_failed"):
        for _ in range(8):
            reader.feed(piece * (1024 * 1024 // len(piece)))
    assert time.process_time() - started < 2


async def test_whole_answers_do_not_stream_upstream() -> None:
    async with ScriptedOpenAi() as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), IMPATIENT) as model:
        events = [event async for event in model.stream(ChatRequest([Message("user", "hi")], options={"stream": False, "temperature": 0.5}))]
        assert upstream.requests[0]["stream"] is False
        assert upstream.requests[0]["temperature"] == 0.5
    assert events[0] == Tokens(("Hello world",))


async def test_connections_are_kept_and_used_again() -> None:
    async with ScriptedOpenAi() as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), IMPATIENT) as model:
        for _ in range(5):
            assert [event async for event in model.stream(ChatRequest([Message("user", "hi")]))]
        assert upstream.connections == 1


async def test_the_key_comes_from_its_file_and_never_into_an_error(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-upstream-secret\n")
    async with ScriptedOpenAi(Script(mode="error_status", status=401)) as upstream:
        async with OpenAiChatModel(OpenAiEndpoint(upstream.url, "m", tmp_path / "key"), IMPATIENT) as model:
            with pytest.raises(ApplianceError) as raised:
                await anext(aiter(model.stream(ChatRequest([Message("user", "hi")]))))
        assert upstream.authorizations == ["Bearer sk-upstream-secret"]
    assert "sk-upstream" not in f"{raised.value} {raised.value.context}"


async def test_a_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match="settings_invalid"):
        async with OpenAiChatModel(OpenAiEndpoint("http://127.0.0.1:1/v1", "m", tmp_path / "none"), IMPATIENT):
            pass


async def test_nobody_listening_is_an_upstream_failure() -> None:
    async with OpenAiChatModel(OpenAiEndpoint("http://127.0.0.1:1/v1", "m"), IMPATIENT) as model:
        with pytest.raises(ApplianceError, match="upstream_failed"):
            await model.health()
        with pytest.raises(ApplianceError, match="upstream_failed"):
            await anext(aiter(model.stream(ChatRequest([Message("user", "hi")]))))


async def test_cancelling_the_task_closes_the_upstream() -> None:
    async with (
        ScriptedOpenAi(Script(endless=True, delay_seconds=0.01)) as upstream,
        OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), IMPATIENT) as model,
    ):

        async def listen() -> None:
            async for _ in model.stream(ChatRequest([Message("user", "hi")])):
                pass

        task = asyncio.create_task(listen())
        while not upstream.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(5):
            await upstream.departed.wait()


async def test_a_listener_that_takes_its_time_is_not_the_servers_silence() -> None:
    settings = IMPATIENT.model_copy(update={"first_byte_timeout_seconds": 30.0, "total_timeout_seconds": 30.0, "between_bytes_timeout_seconds": 0.2})
    async with ScriptedOpenAi(Script(("a", "b"), delay_seconds=0.01)) as upstream, OpenAiChatModel(OpenAiEndpoint(upstream.url, "m"), settings) as model:
        events = model.stream(ChatRequest([Message("user", "hi")]))
        assert isinstance(await anext(events), Tokens)
        await asyncio.sleep(0.6)  # three times as long as the server may be silent
        assert [type(event) for event in [event async for event in events]][-1] is Finish
