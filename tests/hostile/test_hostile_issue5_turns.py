"""Turns that borrow from other turns: their effects, their answers, their approvals; agents that are not for everybody."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.contracts.llm.v1.api import Capabilities
from appliance.contracts.router.v1.agents import Agent
from services.router.parts import Parts
from tests.unit.agents.test_tool_loop import Model, asks
from tests.unit.agents.test_tool_loop import says as words
from tests.unit.agents.tool_bed import Probe, call, tool, toolbox
from tests.unit.router.turn_bed import Shelf, answered, router


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
