"""The chain of fallbacks: who answers when a model cannot, what is never handed on, and an upstream that dies under two hundred streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.contracts.llm.v1.api import (
    AnswerSchema,
    Capabilities,
    ChatModel,
    ChatRequest,
    Finish,
    Message,
    ModelEvent,
    Quote,
    Quotes,
    Rerouted,
    Tokens,
    ToolCall,
    ToolSpec,
)
from appliance.contracts.retrieval.v1.api import Passage
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.testing.check_chat_model import Subject, Wanted, check_chat_model
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from appliance.testing.scripted_openai import Script, ScriptedOpenAi
from services.llm.bootstrap import BuiltModel
from services.llm.composition import with_fallback
from services.llm.fallback_chat_model import UPSTREAM_TROUBLES, FallbackChatModel
from services.llm.openai_pool import build_pool
from services.llm.pool import metrics
from services.llm.reader_chat_model import ReaderChatModel
from tests.unit.llm_bed import PATIENT, Heard, count, hear, pool_over, until
from tests.unit.test_openai_chat_model import script_for

FULL = Capabilities(tools=True, schema="grammar")
TOOL = ToolSpec("f")
TEXT = "The notice period is three months. It begins on the first day of the month."
PASSAGE = Passage(1, "d", "contract.pdf", 1, "legal", 2, ("Terms",), 0, len(TEXT), TEXT, 1.0)
QUESTION = [Message("user", "What is the notice period?")]
SCHEMA = AnswerSchema("s", {"type": "object"})


@dataclass
class Serving:
    """A model under an alias, as the box serves it."""

    alias: str
    model: ChatModel
    grounded_only: bool = False
    hold: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)


class Box:
    """What is served now; every model falls back to the next one."""

    def __init__(self, *models: tuple[str, ChatModel]) -> None:
        self.served: dict[str, Serving] = {}
        for (alias, model), (following, _) in zip(models, [*models[1:], ("", None)], strict=True):
            wrapped = FallbackChatModel(alias, model, self.looking_up(following)) if following else model
            self.served[alias] = Serving(alias, wrapped, isinstance(model, ReaderChatModel))

    def looking_up(self, alias: str) -> Callable[[], Serving | None]:
        return lambda: self.served.get(alias)

    def __getitem__(self, alias: str) -> ChatModel:
        return self.served[alias].model


def saying(text: str, can: Capabilities = FULL) -> ScriptedChatModel:
    return ScriptedChatModel(ScriptedAnswer(((text,),)), can)


def failing(code: str, can: Capabilities = FULL) -> ScriptedChatModel:
    return ScriptedChatModel(ScriptedAnswer(fail_first=code), can)


@asynccontextmanager
async def well(wanted: Wanted) -> AsyncIterator[Subject]:
    """The model itself answers; where it is to fail, everything in the chain fails."""
    async with pool_over(script_for(wanted)) as bed, pool_over(script_for(wanted)) as other:
        box = Box(("a", bed.pool), ("b", other.pool))
        yield Subject(box["a"], bed.upstreams[0].departed.wait)


class Down(ScriptedChatModel):
    """Does not answer; its health is as told."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        raise ApplianceError(self.answer.fail_first or "upstream_failed", "scripted failure")
        yield


@asynccontextmanager
async def down(wanted: Wanted) -> AsyncIterator[Subject]:
    """The fallback answers."""
    async with pool_over(script_for(wanted)) as bed:
        box = Box(("a", Down(ScriptedAnswer(fail_first=wanted.failure))), ("b", bed.pool))
        yield Subject(box["a"], bed.upstreams[0].departed.wait)


@pytest.mark.parametrize("maker", [well, down])
async def test_a_chain_keeps_the_promises_of_a_chat_model(maker: Callable[[Wanted], AbstractContextManager[Subject]]) -> None:
    await check_chat_model(maker)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", sorted(UPSTREAM_TROUBLES))
async def test_a_trouble_of_the_upstream_is_handed_on_and_told_first(code: str) -> None:
    before = count(metrics.fallbacks, "a", "b", code)
    heard = await hear(Box(("a", failing(code)), ("b", saying("from b")))["a"])
    assert (heard.text, heard.rerouted) == ("from b", [("b", code)])
    assert count(metrics.fallbacks, "a", "b", code) == before + 1


@pytest.mark.parametrize("code", ["context_length_exceeded", "invalid_request", "content_blocked", "schema_unsupported", "internal"])
async def test_what_is_wrong_with_the_request_goes_back_to_the_caller(code: str) -> None:
    other = saying("from b")
    assert (await hear(Box(("a", failing(code)), ("b", other))["a"])).code == code
    assert other.requests == []


async def test_a_model_that_answers_asks_nobody_else() -> None:
    other = saying("from b")
    heard = await hear(Box(("a", saying("from a")), ("b", other))["a"])
    assert (heard.text, heard.rerouted, other.requests) == ("from a", [], [])


@pytest.mark.parametrize("code", sorted(UPSTREAM_TROUBLES))
async def test_after_the_first_token_no_second_answer_begins(code: str) -> None:
    other = saying("from b")
    broken = ScriptedChatModel(ScriptedAnswer((("half",),), fail_midway=code))
    heard = await hear(Box(("a", broken), ("b", other))["a"])
    assert (heard.text, heard.code, other.requests) == ("half", code, [])


class OnlyQuotes(ScriptedChatModel):
    """Breaks between its quotes and its first token."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        yield Quotes((Quote(1, 1, 0, 3),))
        raise ApplianceError("upstream_failed", "scripted failure")


async def test_quotes_alone_are_nothing_shown_and_are_not_left_behind() -> None:
    chain = Box(("a", OnlyQuotes()), ("b", saying("from b")))["a"]
    events = [event async for event in chain.stream(ChatRequest([Message("user", "hi")]))]
    assert [type(event) for event in events] == [Rerouted, Tokens, Finish]


async def test_the_chain_is_followed_down_to_the_reader_and_each_step_is_told() -> None:
    box = Box(("a", failing("upstream_failed")), ("b", failing("overloaded")), ("r", ReaderChatModel(None, None)))
    heard = await hear(box["a"], messages=QUESTION, passages=[PASSAGE], grounded=True)
    assert heard.rerouted == [("b", "upstream_failed"), ("r", "overloaded")]
    assert "three months" in heard.text
    assert isinstance(box["a"], FallbackChatModel)
    assert box["a"].needs_sources


async def test_the_reader_is_not_asked_when_nobody_looked_for_sources() -> None:
    box = Box(("a", failing("upstream_failed")), ("r", ReaderChatModel(None, None)))
    heard = await hear(box["a"], messages=QUESTION)
    assert (heard.code, heard.text) == ("upstream_failed", "")


@pytest.mark.parametrize(
    ("request_", "able"),
    [
        ({}, True),
        ({"tools": (TOOL,)}, False),
        ({"tools": (TOOL,), "tool_choice": "none"}, True),
        ({"messages": [Message("user", "hi"), Message("assistant", "", (ToolCall("a", "f", "{}"),)), Message("tool", "1", tool_call_id="a")]}, False),
        ({"answer_schema": SCHEMA}, False),
    ],
)
async def test_a_fallback_that_cannot_keep_what_is_asked_is_passed_over_for_one_that_can(request_: dict[str, Any], able: bool) -> None:
    weak, strong = saying("weak", Capabilities(schema="asked")), saying("strong")
    heard = await hear(Box(("a", failing("unavailable")), ("b", weak), ("c", strong))["a"], **request_)
    assert heard.rerouted == [("b" if able else "c", "unavailable")]
    assert len(weak.requests) == able
    alone = await hear(Box(("a", failing("unavailable")), ("b", weak))["a"], **request_)
    assert alone.code == ("ok" if able else "unavailable")


async def test_tools_of_the_box_are_left_out_for_a_model_that_takes_none() -> None:
    weak = saying("weak", Capabilities())
    heard = await hear(Box(("a", failing("unavailable")), ("b", weak))["a"], tools=(TOOL,), tools_optional=True)
    assert heard.text == "weak"
    assert weak.requests[0].tools == ()
    called = [Message("user", "What is the notice period?"), Message("assistant", "", (ToolCall("a", "f", "{}"),)), Message("tool", "1", tool_call_id="a")]
    box = Box(("a", failing("unavailable")), ("r", ReaderChatModel(None, None)))
    heard = await hear(box["a"], tools=(TOOL,), tools_optional=True, messages=called, passages=[PASSAGE], grounded=True)
    assert "three months" in heard.text


async def test_a_schema_that_was_only_asked_for_may_be_kept_by_any_model_that_is_asked() -> None:
    asked = Capabilities(schema="asked")
    heard = await hear(Box(("a", failing("unavailable", asked)), ("b", saying("{}", asked)))["a"], answer_schema=SCHEMA)
    assert heard.text == "{}"


async def test_when_nobody_answers_the_error_is_that_of_the_model_asked_for() -> None:
    box = Box(("a", failing("upstream_timeout")), ("b", failing("overloaded")), ("c", failing("context_length_exceeded")))
    heard = await hear(box["a"])
    assert heard.code == "upstream_timeout"
    assert heard.error is not None
    assert "b: overloaded" in str(heard.error.context["fallback"])


async def test_a_fallback_that_breaks_midway_ends_the_stream() -> None:
    broken, third = ScriptedChatModel(ScriptedAnswer((("half",),), fail_midway="upstream_failed")), saying("third")
    heard = await hear(Box(("a", failing("overloaded")), ("b", broken), ("c", third))["a"])
    assert (heard.text, heard.code, third.requests) == ("half", "upstream_failed", [])


async def test_a_switch_of_models_is_followed_and_the_fallback_is_held_to_the_end_of_its_answer() -> None:
    holds: list[str] = []

    @contextmanager
    def hold() -> Iterator[None]:
        holds.append("held")
        yield
        holds.append("let go")

    box = Box(("a", failing("upstream_failed")), ("b", saying("old")))
    box.served["b"] = Serving("b", saying("new"), hold=hold)
    async for event in box["a"].stream(ChatRequest([Message("user", "hi")])):
        if isinstance(event, Tokens):
            assert (event.pieces, holds) == (("new",), ["held"])
    assert holds == ["held", "let go"]
    del box.served["b"]
    assert (await hear(box["a"])).code == "upstream_failed"


async def test_a_fallback_gets_its_part_of_the_deadline() -> None:
    slow = ScriptedChatModel(ScriptedAnswer(batches=(), endless=True, pause_seconds=60))
    heard = await hear(Box(("a", slow), ("b", saying("in time")))["a"], deadline=time.monotonic() + 3)
    assert (heard.text, heard.rerouted) == ("in time", [("b", "upstream_timeout")])
    assert slow.cancelled.is_set()


async def test_health_is_that_of_the_model_itself() -> None:
    with pytest.raises(ApplianceError, match="upstream_failed"):
        await Box(("a", failing("upstream_failed")), ("b", saying("x")))["a"].health()


async def test_only_a_model_with_a_fallback_is_wrapped() -> None:
    async def close() -> None: ...

    def nothing(_alias: str) -> Serving | None:
        return None

    plain = BuiltModel(ModelSpec("llm", "a", "reader"), saying("x"), needs_sources=True, close=close)
    assert with_fallback(plain, nothing) is plain
    built = BuiltModel(ModelSpec("llm", "a", "openai", fallback="b"), failing("overloaded"), needs_sources=False, close=close)
    heard = await hear(with_fallback(built, {"b": Serving("b", saying("from b"))}.get).model)
    assert (heard.text, heard.rerouted) == ("from b", [("b", "overloaded")])


async def test_an_entry_of_models_toml_becomes_a_pool_with_what_it_states() -> None:
    async with ScriptedOpenAi() as one, ScriptedOpenAi() as two:
        spec = ModelSpec(
            "llm",
            "a",
            "openai",
            endpoint=one.url,
            endpoints=(two.url, one.url),
            model="m",
            structured_outputs="grammar",
            tools=False,
            max_context=4096,
        )
        async with build_pool(spec, PATIENT) as pool:
            assert [replica.name for replica in pool.replicas] == [one.url, two.url]
            assert pool.capabilities == Capabilities(tools=False, schema="grammar", max_context=4096)
            assert (await hear(pool)).text == "Hello world"
        assert [request["model"] for request in one.requests + two.requests] == ["m"]


async def test_an_upstream_that_dies_under_two_hundred_streams_leaves_none_hanging() -> None:
    """Those that were shown something end with a code, the others go on at the fallback."""
    streaming, silent = Script(mode="stall"), Script(mode="hang")
    async with pool_over(streaming) as bed:
        (upstream,) = bed.upstreams
        upstream.upcoming.extend([streaming] * 100 + [silent] * 100)
        chain = Box(("a", bed.pool), ("r", saying("from the fallback")))["a"]
        shown = [Heard() for _ in range(100)]
        streams = [asyncio.create_task(hear(chain, heard=heard, patience=60)) for heard in shown]
        async with asyncio.timeout(60):
            await asyncio.gather(*(heard.begun.wait() for heard in shown))
        waiting = [asyncio.create_task(hear(chain, patience=60)) for _ in range(100)]
        await until(lambda: upstream.active == 200)
        upstream.die()
        async with asyncio.timeout(60):
            broken, moved = await asyncio.gather(*streams), await asyncio.gather(*waiting)
        assert {heard.code for heard in broken} == {"upstream_failed"}
        assert not any(heard.rerouted for heard in broken)
        assert {heard.text for heard in moved} == {"from the fallback"}
        assert all(heard.rerouted[0][0] == "r" for heard in moved)
        assert bed.pool.replicas[0].outstanding == 0
