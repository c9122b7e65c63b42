"""Agents and tools for people: what there is, one call by hand, and approvals of calls in chats. Rights are the toolbox's."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from appliance.contracts.llm.v1.api import ToolCall
from appliance.contracts.orchestrator.v1.values import EMPTY, Wire
from appliance.contracts.tools.v1.api import ToolContext
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.logging import correlation_id
from services.gateway.caller import Caller
from services.gateway.tool_desk import ToolDesk
from services.gateway.wire import answered, sent, told

AgentInQuery = Annotated[str, Query(min_length=1, max_length=40)]
ApprovalId = Annotated[str, Path(min_length=1, max_length=100)]


class ToolCallByHand(Wire, frozen=True):
    """One call as an agent would make it."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    arguments: msgspec.Raw = EMPTY
    agent: Annotated[str, msgspec.Meta(min_length=1, max_length=40)] = "assistant"
    spaces: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=63)], ...], msgspec.Meta(max_length=100)] | None = None


class ToolDecision(Wire, frozen=True):
    """The answer to a request."""

    decision: Literal["approve", "reject"]


Calling = Annotated[ToolCallByHand, Depends(sent(ToolCallByHand))]
Deciding = Annotated[ToolDecision, Depends(sent(ToolDecision))]


def tool_routes(desk: ToolDesk) -> APIRouter:
    """``/api/agents``, ``/api/tools`` and ``/api/tools/approvals``."""
    router = APIRouter(prefix="/api", tags=["tools"])

    @router.get("/agents", summary="Agents that the caller may ask, without their prompts", **told())
    async def agents(caller: Caller) -> Response:
        rows = [
            {"name": one.name, "titles": one.titles, "tools": one.tools, "model": one.model, "retrieval": one.retrieval, "maxRounds": one.max_rounds}
            for one in desk.agents.all()
            if one.is_for(caller)
        ]
        return answered({"data": rows})

    @router.get("/tools", summary="What the caller may use with an agent; with `every` all that there is, for administrators", **told())
    async def tools(caller: Caller, agent: AgentInQuery = "assistant", every: bool = False) -> Response:
        if every:
            _for_administrators(caller)
            return answered({"data": list(desk.toolbox.describe())})
        _check_agent(desk, agent, caller)
        offered = desk.toolbox.offered(ToolContext(caller, agent))
        return answered({"data": [{"name": one.name, "description": one.description, "parameters": one.parameters} for one in offered]})

    @router.get("/tools/sources", summary="Where tools come from, and how they are, for administrators", **told())
    async def sources(caller: Caller) -> Response:
        _for_administrators(caller)
        return answered({"data": list(desk.sources())})

    @router.post(
        "/tools/call",
        summary="Run one tool as an agent would",
        **told(sends=ToolCallByHand, example={"name": "calculator", "arguments": {"expression": "6*7"}}),
    )
    async def call(caller: Caller, asked: Calling) -> Response:
        _check_agent(desk, asked.agent, caller)
        context = ToolContext(caller, asked.agent, asked.spaces, trace_id=correlation_id.get())
        one = ToolCall(f"hand-{secrets.token_hex(8)}", asked.name, bytes(asked.arguments).decode())
        (outcome,) = await desk.toolbox.run([one], context)
        row: dict[str, Any] = {"name": asked.name, "content": outcome.content, "code": outcome.code, "seconds": round(outcome.seconds, 6)}
        return answered({**row, "cached": outcome.cached, "source": outcome.source})

    @router.get("/tools/approvals", summary="Calls that wait for a person, oldest first", **told())
    async def approvals(caller: Caller, pending: bool = True) -> Response:
        return answered({"data": list(desk.approvals.list(caller, pending_only=pending))})

    @router.post(
        "/tools/approvals/{approval_id}/decide",
        summary="Approve or reject exactly this call",
        **told(sends=ToolDecision, example={"decision": "approve"}),
    )
    async def decide(approval_id: ApprovalId, caller: Caller, asked: Deciding) -> Response:
        return answered(await desk.approvals.decide(caller, approval_id, asked.decision))

    return router


def _check_agent(desk: ToolDesk, name: str, caller: Principal) -> None:
    agent = desk.agents.get(name)
    if agent is None or not agent.is_for(caller):
        raise not_found("agent")


def _for_administrators(caller: Principal) -> None:
    if not caller.is_admin:
        raise ApplianceError("forbidden", "only administrators see this", hint="see what you may use with GET /api/tools")
