"""Spans along the chat path: the names an operator looks for, under one parent, with sources, tokens and cost on them; nothing of what was said."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from appliance.contracts.llm.v1.api import Finish, Message, Tokens, Usage
from appliance.contracts.retrieval.v1.api import SearchResult
from appliance.contracts.router.v1.api import ChatTurn, DoneEvent
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import correlation_id
from appliance.kit.telemetry import disable_spans, enable_spans, make_provider, read_headers, request_span, span, trace_id_of
from services.router.chat_turn import ChatRouter
from services.router.served_model import ServedModel

READER = Principal("user:a", "user", spaces={"s": SpaceRole.READER})
TURN = ChatTurn((Message("user", "What now, box of mine?"),), "m", trace_id="request-1", thread_id="t_1")


class Nothing:
    async def search(self, query, principal):
        return SearchResult((), "en", {})

    def has_documents(self, spaces):
        return True


class Three:
    def __init__(self, problem: Exception | None = None):
        self.problem = problem

    async def stream(self, request):
        yield Tokens(("to", "ken"))
        if self.problem is not None:
            raise self.problem
        yield Finish("stop", Usage(10, 3, 4))

    async def health(self):
        return None


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = make_provider("test")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    enable_spans(provider)
    yield exporter
    disable_spans()


async def run(model: Three) -> DoneEvent:
    served = ServedModel("m", model, version="sha256:1", cost=lambda usage: usage.completion_tokens * 0.5)
    events = [event async for event in ChatRouter({"m": served}, Nothing()).chat(TURN, READER)]
    assert isinstance(events[-1], DoneEvent)
    return events[-1]


async def test_a_turn_leaves_spans_with_its_facts(spans) -> None:
    await run(Three())
    found = {one.name: one for one in spans.get_finished_spans()}
    assert {"chat.turn", "chat.retrieve", "llm.generate"} <= set(found)
    turn, generate = found["chat.turn"], found["llm.generate"]
    assert generate.parent.span_id == found["chat.retrieve"].parent.span_id == turn.context.span_id
    assert turn.attributes["user.id"] == "user:a"
    assert turn.attributes["session.id"] == turn.attributes["gen_ai.conversation.id"] == "t_1"
    assert turn.attributes["appliance.request_id"] == "request-1"
    expected = {
        "gen_ai.request.model": "m", "appliance.model.version": "sha256:1", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4, "gen_ai.usage.cost": 1.5, "gen_ai.response.finish_reasons": ("stop",),
        "langfuse.observation.type": "generation",
    }  # fmt: skip
    assert {key: generate.attributes[key] for key in expected} == expected
    assert not any(key.startswith("gen_ai.usage") for key in turn.attributes)  # the sum is made by who reads it


async def test_what_was_said_stays_in_the_box_unless_a_setting_lets_it_out(spans) -> None:
    await run(Three())
    told = str([dict(one.attributes) for one in spans.get_finished_spans()])
    assert "box of mine" not in told
    assert "token" not in told.replace("_tokens", "").replace("first_token", "")
    spans.clear()
    provider = make_provider("test")
    provider.add_span_processor(SimpleSpanProcessor(spans))
    enable_spans(provider, content=True)
    await run(Three())
    (generate,) = (one for one in spans.get_finished_spans() if one.name == "llm.generate")
    assert "box of mine" in generate.attributes["gen_ai.input.messages"]
    assert '"token"' in generate.attributes["gen_ai.output.messages"]


async def test_an_error_leaves_its_code_and_no_words(spans) -> None:
    with pytest.raises(ApplianceError):
        await run(Three(ApplianceError("upstream_failed", "somebody's words")))
    (generate,) = (one for one in spans.get_finished_spans() if one.name == "llm.generate")
    assert generate.attributes["error.type"] == generate.status.description == "upstream_failed"
    assert "somebody" not in generate.to_json()


def test_the_trace_is_that_of_the_request_or_of_the_caller(spans) -> None:
    token = correlation_id.set("request-7")
    try:
        with request_span("gateway.request", None):
            pass
        with request_span("gateway.request", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"):
            pass
        with request_span("gateway.request", b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01"):
            pass
    finally:
        correlation_id.reset(token)
    own, joined, nonsense = spans.get_finished_spans()
    assert f"{own.context.trace_id:032x}" == f"{nonsense.context.trace_id:032x}" == trace_id_of("request-7")
    assert own.parent is None
    assert (f"{joined.context.trace_id:032x}", f"{joined.parent.span_id:016x}") == ("a" * 32, "b" * 16)


def test_while_it_is_off_a_span_is_one_shared_object_and_costs_next_to_nothing() -> None:
    disable_spans()
    assert span("a") is span("b") is request_span("c", None)
    best = min(_round() for _ in range(5))
    assert best < 10e-6  # measured 0.3 µs; the bound allows for a busy machine
    with span("a") as current:
        assert current is trace.INVALID_SPAN


def _round() -> float:
    begun = time.perf_counter()
    for _ in range(2000):
        with span("a"):
            pass
    return (time.perf_counter() - begun) / 2000


def test_headers_come_from_a_file_and_its_mistakes_quote_nothing(tmp_path) -> None:
    file = tmp_path / "headers"
    file.write_text("# Langfuse\nbasic: pk:sk\n\nX-Site: 7\n")
    assert read_headers(file) == {"authorization": "Basic cGs6c2s=", "x-site": "7"}
    for wrong in ("secret-without-colon", "a b: secret", "x: \u044f", "x:"):
        file.write_text(wrong)
        with pytest.raises(ApplianceError) as caught:
            read_headers(file)
        assert caught.value.code == "settings_invalid"
        assert "secret" not in str(caught.value)
    with pytest.raises(ApplianceError):
        read_headers(tmp_path / "absent")
