"""Spans along the chat path: the names an operator looks for, under one parent, with sources and tokens on them."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from appliance.contracts.llm.v1.api import Finish, Message, Tokens, Usage
from appliance.contracts.retrieval.v1.api import SearchResult
from appliance.contracts.router.v1.api import ChatTurn, DoneEvent
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.telemetry import enable_spans
from services.router.chat_turn import ChatRouter
from services.router.served_model import ServedModel


class Nothing:
    async def search(self, query, principal):
        return SearchResult((), "en", {})

    def has_documents(self, spaces):
        return True


class Three:
    async def stream(self, request):
        yield Tokens(("a", "b"))
        yield Finish("stop", Usage(1, 3))

    async def health(self):
        return None


async def test_a_turn_leaves_spans_with_its_facts() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    enable_spans(provider)
    turn = ChatTurn((Message("user", "What now, box of mine?"),), "m")
    events = [event async for event in ChatRouter({"m": ServedModel("m", Three())}, Nothing()).chat(turn, Principal("user:a", "user", spaces={"s": SpaceRole.READER}))]
    assert isinstance(events[-1], DoneEvent)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"chat.turn", "llm.generate"} <= set(spans)
    assert spans["llm.generate"].parent.span_id == spans["chat.turn"].context.span_id
    assert spans["llm.generate"].attributes["completion_tokens"] == 3
