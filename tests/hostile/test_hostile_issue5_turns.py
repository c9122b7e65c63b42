"""Turns that borrow from other turns: their effects, their answers, their approvals; agents that are not for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from appliance.contracts.llm.v1.api import Capabilities
from appliance.contracts.router.v1.agents import Agent
from appliance.contracts.tools.v1.api import ToolContext
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.cache import MemoryCacheStore
from appliance.kit.cache_settings import CacheSettings
from appliance.kit.errors import ApplianceError
from services.gateway.api import build_api
from services.gateway.front import PRINCIPAL
from services.gateway.routes_tools import tool_routes
from services.gateway.tool_desk import ToolDesk
from services.router.answer_cache import AnswerCache
from services.router.guard.live_policies import LivePolicies
from services.router.guard.policy_chain import PolicyGuard
from services.router.parts import Parts
from tests.unit.agents.test_tool_loop import Model, asks
from tests.unit.agents.test_tool_loop import says as words
from tests.unit.agents.tool_bed import Probe, call, grants_in, tool, toolbox
from tests.unit.router.turn_bed import ANNA, Records, Shelf, answered, passage, router, says, steps, text_of

BORIS = Principal("user:boris", "user", frozenset({"member"}), spaces={"sales": SpaceRole.READER})
LAWYER = Agent("lawyer", {"en": "The merger with Acme"}, tools=("*",), spaces=("legal", "board"))


class TheseAgents:
    """Satisfies ``Agents``."""

    def __init__(self, *agents: Agent) -> None:
        self._agents = {agent.name: agent for agent in agents}

    def get(self, name: str) -> Agent | None:
        return self._agents.get(name)

    def all(self) -> Sequence[Agent]:
        return list(self._agents.values())


async def test_a_request_id_that_comes_again_does_not_swallow_the_second_effect() -> None:
    """``X-Request-Id`` is the caller's to choose, and some engines count calls from ``call_1`` in every turn."""
    sent = Probe(lambda _arguments: "sent")
    parts = Parts(toolbox=toolbox([tool("send", sent)]), agents=TheseAgents(Agent("helper", tools=("*",), retrieval=False)))
    for _ in range(2):
        model = Model(asks(call("send", "{}", "call_1"), call("send", "{}", "call_1")), words("done"))
        model.capabilities = Capabilities(tools=True)  # type: ignore[attr-defined]
        await answered(router(model, Shelf(), parts), "send it", agent="helper", trace_id="the-same", thread_id="th_1")
    assert len(sent.calls) == 2, "once in each turn"


async def test_an_agent_of_spaces_that_a_caller_may_not_read_looks_absent(tmp_path: Path) -> None:
    agents = TheseAgents(LAWYER, Agent("helper", spaces=()))
    api = build_api([tool_routes(ToolDesk(toolbox([tool("send", Probe())]), agents, grants_in(tmp_path)))])
    seen = {}
    for who in (ANNA, BORIS):

        async def let_in(scope, receive, send, who=who) -> None:  # type: ignore[no-untyped-def]
            await api({**scope, PRINCIPAL: who}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(let_in), base_url="http://box") as http:
            seen[who.subject] = (
                [one["name"] for one in (await http.get("/api/agents")).json()["data"]],
                (await http.get("/api/tools?agent=lawyer")).status_code,
                (await http.post("/api/tools/call", json={"name": "send", "agent": "lawyer"})).status_code,
            )
    assert seen == {ANNA.subject: (["lawyer", "helper"], 200, 200), BORIS.subject: (["helper"], 404, 404)}


async def test_a_turn_does_not_reach_an_agent_of_foreign_spaces() -> None:
    parts = Parts(agents=TheseAgents(LAWYER))
    assert await answered(router(says("hello"), parts=parts), "hello", agent="lawyer", principal=ANNA)
    with pytest.raises(ApplianceError) as caught:
        await answered(router(says("hello"), parts=parts), "hello", agent="lawyer", principal=BORIS)
    assert caught.value.code == "not_found"


async def test_an_answer_from_guarded_passages_is_not_given_again_without_the_record(tmp_path: Path) -> None:
    file, records = tmp_path / "guardrails.toml", Records()
    file.write_text('schema_version = 1\n[default]\npii = { passage = "mask" }\n')
    cache = AnswerCache(CacheSettings(), MemoryCacheStore(), revision=lambda: "1")
    parts = Parts(guard=PolicyGuard(LivePolicies(file)), record=records, cache=cache)
    model = says("It is secret.")
    for number, text in enumerate(("Her number is 112-233-445 95.", "Her room is blue.")):
        shelf = Shelf(passage(number + 1, text))
        box = router(model, shelf, parts)
        records.all.clear()
        turns = [answered(box, f"question {number}", options={"temperature": 0}) for _ in range(2)]
        events = [*await asyncio.gather(*turns), await answered(box, f"question {number}", options={"temperature": 0})]
        assert {text_of(one) for one in events} == {"It is secret."}
        assert steps(events[2], "cache"), "from the same passages it is given again"
        assert (len(shelf.asked), len(records.all)) == ((3, 3) if number == 0 else (1, 0))


async def test_what_a_person_approved_for_one_agent_another_does_not_take(tmp_path: Path) -> None:
    """Another agent has read other documents: what it writes with the same words nobody has looked at."""
    sent, grants = Probe(lambda _arguments: "sent"), grants_in(tmp_path)
    box = toolbox([tool("send", sent)], rules=(), grants=grants)
    mine, other = ToolContext(ANNA, "lawyer"), ToolContext(ANNA, "helper")
    await box.run([call("send")], mine)
    await grants.decide(ANNA, grants.list(ANNA)[0].id, "approve")
    (taken,) = grants_in(tmp_path).list(ANNA, pending_only=False)
    assert taken.agent == "lawyer"
    assert [(await box.run([call("send")], context))[0].code for context in (other, mine, mine)] == ["approval_required", "", "approval_required"]
    assert len(sent.calls) == 1
