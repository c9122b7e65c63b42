"""Before a turn is answered: may its words go in, who answers, with which model, over which spaces. Nothing is spent here but a classification.

Owns: the order screen → route → agent → model; the question that is searched for. Does not own: policies (the guard), classes (intents), the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.contracts.guard.v1.api import Finding, GuardScope
from appliance.contracts.llm.v1.api import Message
from appliance.contracts.router.v1.agents import Agent
from appliance.contracts.router.v1.api import ChatTurn, StepEvent
from appliance.contracts.router.v1.routing import Decision
from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.telemetry import span
from appliance.language.query import analyse_query, detect_language
from services.router.parts import DOCUMENTS, Parts
from services.router.served_model import ServedModel

_ENOUGH_TERMS: Final = 3
_MOST_TRACED: Final = 32
_ROLES: Final = frozenset({"user", "tool"})


@dataclass(frozen=True, slots=True)
class Plan:
    """How a turn will be answered.

    Attributes:
        turn: as it goes on: screened, in the agent's spaces.
        agent: who answers.
        served: with which model.
        scope: whose policies hold.
        steps: what to tell people about it.
        unclear: set when the user must be asked which way; nothing else is done then.
    """

    turn: ChatTurn
    agent: Agent
    served: ServedModel
    scope: GuardScope
    steps: tuple[StepEvent, ...] = ()
    unclear: Decision | None = None


class Planning:
    """Plans turns. ``models`` may change between turns: a turn looks its model up once."""

    def __init__(self, models: Mapping[str, ServedModel], parts: Parts) -> None:
        self._models = models
        self._parts = parts

    async def plan(self, turn: ChatTurn, principal: Principal) -> Plan:
        """The plan.

        Raises:
            ApplianceError: ``invalid_request``, ``model_not_found``, ``not_found`` (a space, an agent), ``content_blocked``.
        """
        if not turn.messages or turn.messages[-1].role not in _ROLES:
            raise ApplianceError("invalid_request", "the last message must be the user's", hint="send messages oldest first")
        readable = principal.readable(turn.spaces)
        if turn.spaces and set(turn.spaces) - readable:
            raise not_found("space")
        steps: list[StepEvent] = []
        scope = GuardScope(tuple(sorted(readable)), turn.agent or DOCUMENTS.name)
        if self._parts.guard is not None:
            turn = await self._screened(turn, principal, scope, steps)
        agent, unclear = await self._agent(turn, principal, readable, steps)
        if agent is not DOCUMENTS:
            turn, scope = _as_agent(turn, agent, principal), replace(scope, agent=agent.name)
        return Plan(turn, agent, self._served(turn.model), scope, tuple(steps), unclear)

    def _served(self, alias: str) -> ServedModel:
        served = self._models.get(alias)
        if served is None:
            raise ApplianceError("model_not_found", f"model {alias!r} not found", hint="GET /v1/models lists the models of this box")
        return served

    async def _screened(self, turn: ChatTurn, principal: Principal, scope: GuardScope, steps: list[StepEvent]) -> ChatTurn:
        """The turn with every message of the caller screened: a client sends the history again each time, and could send anything as such."""
        guard = self._parts.guard
        assert guard is not None
        messages = list(turn.messages)
        findings: list[Finding] = []
        for index, message in enumerate(messages):
            if message.content:
                screen = guard.screen_tool if message.role == "tool" else guard.screen_input
                screened = screen(message.content, scope)
                if screened.findings:
                    findings += screened.findings
                    messages[index] = replace(message, content=screened.text)
        if not findings:
            return turn
        await record_findings(self._parts, findings, principal, scope, turn.trace_id)
        steps.append(guard_step(findings))
        if any(finding.action == "block" for finding in findings):
            kinds = ", ".join(sorted({finding.kind for finding in findings if finding.action == "block"}))
            raise ApplianceError("content_blocked", f"a policy of this box does not let this text in: {kinds}", hint="leave that out", param="messages")
        return replace(turn, messages=messages)

    async def _agent(
        self, turn: ChatTurn, principal: Principal, readable: frozenset[str], steps: list[StepEvent]
    ) -> tuple[Agent, Decision | None]:
        intents = self._parts.intents
        if turn.agent:
            found = self._known(turn.agent, principal)
            if found is None and turn.agent != DOCUMENTS.name:
                raise not_found("agent")
            return found or DOCUMENTS, None
        if intents is None or not intents.active or turn.tools or turn.messages[-1].role == "tool":
            return self._known(DOCUMENTS.name, principal) or DOCUMENTS, None
        with span("router.classify") as current:
            decision = await intents.decide(turn.messages, detect_language(turn.messages[-1].content), spaces=readable)
            if current.is_recording():
                route = decision.route.name if decision.route is not None else ""
                current.set_attributes({"appliance.route": route, "appliance.route.source": decision.source, "appliance.route.level": decision.level})
                current.set_attributes({"appliance.route.confidence": float(decision.confidence), "appliance.route.out_of_scope": decision.out_of_scope})
        name = decision.route.agent if decision.route is not None else DOCUMENTS.name
        agent = self._known(name, principal) or DOCUMENTS
        steps.append(route_step(decision, agent.name))
        if decision.route is not None and decision.route.model:
            agent = replace(agent, model=decision.route.model)
        return agent, decision if decision.route is None and decision.options and not decision.out_of_scope else None

    def _known(self, name: str, principal: Principal) -> Agent | None:
        """The agent, when this caller may know of it; the one that answers by default is no secret."""
        agent = self._parts.agents.get(name) if self._parts.agents is not None else None
        return agent if agent is not None and (name == DOCUMENTS.name or agent.is_for(principal)) else None


def _as_agent(turn: ChatTurn, agent: Agent, principal: Principal) -> ChatTurn:
    """The turn in the agent's spaces, with its model when the caller named none."""
    if agent.spaces is not None:
        asked = principal.readable(turn.spaces)
        turn = replace(turn, spaces=tuple(space for space in agent.spaces if space in asked))
    return replace(turn, model=agent.model) if agent.model and turn.model == "default" else turn


def question_of(messages: Sequence[Message]) -> str:
    """What to search for: the last question; with the one before when it says too little alone ("and in May?")."""
    asked = [message.content for message in messages if message.role == "user"]
    last = asked[-1] if asked else messages[-1].content
    if len(asked) > 1 and len(analyse_query(last).terms) < _ENOUGH_TERMS:
        return f"{asked[-2]} {last}"
    return last


def route_step(decision: Decision, agent: str) -> StepEvent:
    """Where a turn goes, for people."""
    route = decision.route.name if decision.route is not None else ""
    return StepEvent(
        "route",
        {
            "route": route, "agent": agent, "confidence": round(decision.confidence, 3), "level": decision.level, "source": decision.source,
            "out_of_scope": decision.out_of_scope,
        },
    )  # fmt: skip


def guard_step(findings: Sequence[Finding]) -> StepEvent:
    """What the guard found, for people; never the text."""
    return StepEvent("guard", {"findings": [{"policy": f.policy, "kind": f.kind, "action": f.action, "where": f.where, "count": f.count} for f in findings]})


async def record_findings(parts: Parts, findings: Sequence[Finding], principal: Principal, scope: GuardScope, trace_id: str) -> None:
    """Put decisions of the guard on record; returns once that is durable."""
    waiting = note_findings(parts, findings, principal, scope, trace_id)
    if waiting is not None:
        await waiting


def note_findings(
    parts: Parts, findings: Sequence[Finding], principal: Principal, scope: GuardScope, trace_id: str
) -> asyncio.Future[int] | None:
    """The same without waiting, for a turn that is being cancelled; None without a log."""
    blocked = any(finding.action == "block" for finding in findings)
    with span("guard.findings") as current:
        if current.is_recording():
            found = tuple(f"{one.where} {one.policy}.{one.kind} {one.action} {one.count}" for one in findings)[:_MOST_TRACED]
            current.set_attributes({names.KIND: "guardrail", "appliance.guard.findings": found, names.OUTCOME: "blocked" if blocked else "ok"})
    if parts.record is None:
        return None
    detail: dict[str, str | int] = {"agent": scope.agent, "spaces": " ".join(scope.spaces)[:500]}
    for finding in findings:
        key = f"{finding.where}.{finding.policy}.{finding.kind}.{finding.action}"
        detail[key] = int(detail.get(key, 0)) + finding.count
    return parts.record(
        actor=principal.subject, action="guard.screen", resource=f"agent:{scope.agent}", outcome="deny" if blocked else "ok", detail=detail,
        trace_id=trace_id,
    )  # fmt: skip
