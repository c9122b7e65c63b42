"""A turn with everything on is one tree of spans: guard, classify, retrieve, generate, tools, rounds by a schema; each says what it did, none what was said."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from appliance.contracts.llm.v1.api import AnswerSchema, Capabilities, Finish, Message, Tokens, ToolCall, ToolCalls, Usage
from appliance.contracts.router.v1.agents import Agent
from appliance.contracts.router.v1.api import ChatTurn
from appliance.contracts.router.v1.routing import Decision, Route
from appliance.kit.telemetry import disable_spans, enable_spans, make_provider, span
from services.router.guard.live_policies import LivePolicies
from services.router.guard.policy_chain import PolicyGuard
from services.router.parts import Parts
from tests.unit.agents.tool_bed import Probe, tool, toolbox
from tests.unit.router.turn_bed import ANNA, Records, Shelf, answered, passage, router

SCHEMA = AnswerSchema("due", {"type": "object", "properties": {"day": {"type": "integer"}}, "required": ["day"], "additionalProperties": False})


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = make_provider("test")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    enable_spans(provider)
    yield exporter
    disable_spans()


class Decided:
    active = True

    async def decide(self, messages, language, *, spaces=None):
        return Decision(Route("ask", "clerk"), 0.9, "high", "classifier")


class Crew:
    def get(self, name: str) -> Agent | None:
        return Agent("clerk", tools=("look", "fails")) if name == "clerk" else None

    def all(self):
        return ()


class Asks:
    """Two tools at once, then an answer."""

    capabilities = Capabilities(tools=True)

    async def stream(self, request):
        if request.messages[-1].role != "tool":
            yield ToolCalls((ToolCall("c1", "look", '{"text": "hush"}'), ToolCall("c2", "fails", "{}")))
            yield Finish("tool_calls", Usage(5, 2))
            return
        yield Tokens(("Done", " [1]."))
        yield Finish("stop", Usage(9, 3))


class Fills:
    """Wrong, then right."""

    capabilities = Capabilities(schema="asked")

    async def stream(self, request):
        yield Tokens(('{"day": 31}' if len(request.messages) > 2 else '{"day": "hush"}',))
        yield Finish("stop", Usage(5, 3))


class Endless:
    capabilities = Capabilities()

    async def stream(self, request):
        while True:
            yield Tokens(("more ",))


def above(spans: Mapping[str, ReadableSpan], name: str) -> str:
    parent = spans[name].parent
    return "" if parent is None else next(other for other, one in spans.items() if one.context.span_id == parent.span_id)


async def test_a_turn_with_everything_on_is_one_tree(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    async def breaks(_arguments: Any, _context: Any) -> str:
        raise ValueError("hush")

    look = tool("look", Probe())
    box = toolbox([look, tool("fails", breaks)])
    parts = Parts(guard=PolicyGuard(LivePolicies(tmp_path / "none.toml")), record=Records(), intents=Decided(), agents=Crew(), toolbox=box)
    with span("gateway.request"):
        await answered(
            router(Asks(), Shelf(passage(1, "Due in May.")), parts), "My card is 4111 1111 1111 1111, when is it due?", trace_id="tr", thread_id="t_1"
        )
    found = {one.name: one for one in spans.get_finished_spans() if one.name != "tool.call"}
    tools = [one for one in spans.get_finished_spans() if one.name == "tool.call"]
    tree = {name: above(found, name) for name in found}
    assert tree["chat.turn"] == "gateway.request"
    assert {name for name, parent in tree.items() if parent == "chat.turn"} == {"guard.findings", "router.classify", "chat.retrieve", "llm.generate"}
    assert {one.parent.span_id for one in tools} == {found["llm.generate"].context.span_id}
    facts = {one.attributes["gen_ai.tool.name"]: one.attributes for one in tools}
    assert (facts["look"]["appliance.outcome"], facts["look"]["gen_ai.tool.call.id"]) == ("ok", "c1")
    assert facts["fails"]["appliance.outcome"] == "tool_failed"
    assert facts["look"]["langfuse.observation.type"] == "tool"
    assert found["router.classify"].attributes["appliance.route"] == "ask"
    assert found["chat.turn"].attributes["gen_ai.agent.name"] == "clerk"
    assert any("card" in one for one in found["guard.findings"].attributes["appliance.guard.findings"])
    assert found["chat.retrieve"].attributes["appliance.sources"] == ("d_1",)
    told = str([dict(one.attributes) for one in spans.get_finished_spans()])
    assert "4111" not in told
    assert "hush" not in told
    assert len({one.context.trace_id for one in spans.get_finished_spans()}) == 1


async def test_rounds_by_a_schema_say_what_failed_by_count_and_the_sum_is_on_the_generation(spans: InMemorySpanExporter) -> None:
    await answered(router(Fills()), "When?", answer_schema=SCHEMA)
    rounds = [one for one in spans.get_finished_spans() if one.name == "schema.round"]
    checks = [one for one in spans.get_finished_spans() if one.name == "schema.validate"]
    (generate,) = (one for one in spans.get_finished_spans() if one.name == "llm.generate")
    assert [one.attributes["appliance.round"] for one in rounds] == [1, 2]
    assert [one.attributes["appliance.violations"] for one in checks] == [1, 0]
    assert {one.attributes["appliance.schema.digest"] for one in (*rounds, *checks)} == {rounds[0].attributes["appliance.schema.digest"]}
    assert generate.attributes["appliance.schema.name"] == "due"
    assert generate.attributes["gen_ai.usage.output_tokens"] == 6
    assert "hush" not in str([dict(one.attributes) for one in spans.get_finished_spans()])


async def test_a_turn_that_is_broken_off_ends_its_spans_in_order(spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "opentelemetry")
    async with aclosing(router(Endless()).chat(ChatTurn([Message("user", "Go on")]), ANNA)) as events:
        async for _ in events:
            break
    ended = spans.get_finished_spans()
    assert [one.name for one in ended] == ["llm.generate", "chat.turn"]
    assert {one.attributes["error.type"] for one in ended} == {"cancelled"}
    assert all(one.status.is_unset for one in ended)
    assert caplog.records == []
