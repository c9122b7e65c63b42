"""Approvals and the rules about them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from appliance.contracts.orchestrator.v1.values import ApprovalRequest
from services.gateway.caller import Caller, StillCaller
from services.gateway.error_bodies import invalid
from services.gateway.limits import Slots
from services.gateway.orchestration import present
from services.gateway.ports import Dependencies
from services.gateway.routes_tasks import Patience
from services.gateway.schemas_tasks import DECISION_EXAMPLE, ApprovalList, Decision, Rule, Rules
from services.gateway.waiting import patiently
from services.gateway.wire import answered, sent, told

ApprovalId = Annotated[str, Path(min_length=1, max_length=200)]
SpaceInPath = Annotated[str, Path(min_length=1, max_length=63)]
ActionInQuery = Annotated[str, Query(min_length=1, max_length=200)]
Deciding = Annotated[Decision, Depends(sent(Decision))]
Ruling = Annotated[Rule, Depends(sent(Rule))]


def approval_routes(box: Dependencies, waits: Slots) -> APIRouter:
    """``/api/approvals`` and ``/api/approval-policies``."""
    router = APIRouter(prefix="/api", tags=["approvals"])

    @router.get("/approvals", summary="The queue, oldest first", **told(ApprovalList))
    async def listed(
        caller: Caller,
        pending: bool = True,
        space: Annotated[str | None, Query(min_length=1, max_length=63)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        found = await present(box.orchestration).approvals.list(caller, pending_only=pending, space=space, limit=limit)
        return answered(ApprovalList(data=tuple(found)))

    @router.get("/approvals/{approval_id}", summary="One request", **told(ApprovalRequest))
    async def one(approval_id: ApprovalId, caller: Caller) -> Response:
        return answered(await present(box.orchestration).approvals.wait(caller, approval_id, 0.0))

    @router.get(
        "/approvals/{approval_id}/wait", summary="The request once it is decided, or as it is after `timeout` seconds", **told(ApprovalRequest)
    )
    async def wait(request: Request, approval_id: ApprovalId, caller: Caller, again: StillCaller, timeout: Patience = 30.0) -> Response:  # noqa: ASYNC109
        approvals = present(box.orchestration).approvals
        await patiently(approvals.wait(caller, approval_id, timeout), request, caller, again, waits, timeout)
        return answered(await approvals.wait(await again(), approval_id, 0.0))  # rights as of now

    @router.post(
        "/approvals/{approval_id}/decide",
        summary="Approve, reject, or approve with other arguments",
        **told(ApprovalRequest, sends=Decision, example=DECISION_EXAMPLE),
    )
    async def decide(approval_id: ApprovalId, asked: Deciding, caller: Caller) -> Response:
        if asked.decision == "reject" and asked.modified_arguments is not None:
            raise invalid("a rejection has no arguments", "modifiedArguments")
        approvals = present(box.orchestration).approvals
        decided = await approvals.decide(caller, approval_id, asked.decision, asked.reason, asked.modified_arguments, asked.grant)
        return answered(decided)

    @router.get("/approval-policies/{space}", summary="Rules of a space, and suggestions", **told(Rules))
    async def policies(space: SpaceInPath, caller: Caller) -> Response:
        return answered(Rules(data=tuple(await present(box.orchestration).approvals.policies(caller, space))))

    @router.put(
        "/approval-policies/{space}",
        summary="Set the rule for an action",
        **told(sends=Rule, status=204, example={"action": "file.*", "mode": "ASK"}),
    )
    async def set_policy(space: SpaceInPath, asked: Ruling, caller: Caller) -> Response:
        await present(box.orchestration).approvals.set_policy(caller, space, asked.action, asked.mode)
        return Response(status_code=204)

    @router.delete("/approval-policies/{space}", summary="Remove the rule for an action", **told(status=204))
    async def remove_policy(space: SpaceInPath, action: ActionInQuery, caller: Caller) -> Response:
        await present(box.orchestration).approvals.set_policy(caller, space, action, None)
        return Response(status_code=204)

    return router
