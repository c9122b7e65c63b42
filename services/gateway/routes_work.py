"""Work for executors that speak HTTP: claim, report, ask. The same calls as over MCP; ``token`` is the fencing token of the claim."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from appliance.contracts.orchestrator.v1.values import NULL, ApprovalRequest, Checkpoint, Task
from services.gateway.caller import Caller, StillCaller
from services.gateway.limits import Slots
from services.gateway.orchestration import present
from services.gateway.ports import Dependencies
from services.gateway.routes_tasks import TaskId
from services.gateway.schemas_tasks import (
    QUESTION_EXAMPLE,
    Claim,
    Claimed,
    Completion,
    Continuation,
    Delegation,
    EffectBegins,
    EffectOutcome,
    EffectStanding,
    FailureReport,
    NewCheckpoint,
    Question,
    Report,
    StepList,
)
from services.gateway.waiting import patiently
from services.gateway.wire import answered, sent, told

ExecutorId = Annotated[str, Path(min_length=1, max_length=200)]
Claiming = Annotated[Claim, Depends(sent(Claim))]
Reporting = Annotated[Report, Depends(sent(Report))]
Keeping = Annotated[NewCheckpoint, Depends(sent(NewCheckpoint))]
Completing = Annotated[Completion, Depends(sent(Completion))]
Failing = Annotated[FailureReport, Depends(sent(FailureReport))]
Delegating = Annotated[Delegation, Depends(sent(Delegation))]
Continuing = Annotated[Continuation, Depends(sent(Continuation))]
Asking = Annotated[Question, Depends(sent(Question))]
Beginning = Annotated[EffectBegins, Depends(sent(EffectBegins))]
Finishing = Annotated[EffectOutcome, Depends(sent(EffectOutcome))]
TokenInQuery = Annotated[int, Query(ge=0, le=2**63 - 1, description="fencing token of the claim")]
_TOKEN = 4711


def work_routes(box: Dependencies, waits: Slots) -> APIRouter:
    """``/api/executors/{id}/claim`` and the reports below ``/api/tasks/{id}``."""
    router = APIRouter(prefix="/api", tags=["work"])

    @router.post(
        "/executors/{executor_id}/claim", summary="The best task for this executor", **told(Claimed, sends=Claim, example={"waitSeconds": 30})
    )
    async def claim(request: Request, executor_id: ExecutorId, asked: Claiming, caller: Caller, again: StillCaller) -> Response:
        claiming = present(box.orchestration).work.claim(caller, executor_id, asked.capabilities, asked.wait_seconds)
        return answered(Claimed(task=await patiently(claiming, request, caller, again, waits, asked.wait_seconds)))

    @router.post(
        "/tasks/{task_id}/progress",
        summary="The work goes on: renews the lease, records finished steps",
        **told(Task, sends=Report, example={"token": _TOKEN, "progress": 0.4, "note": "reading", "steps": [{"name": "load", "result": 12}]}),
    )
    async def progress(task_id: TaskId, asked: Reporting, caller: Caller) -> Response:
        work = present(box.orchestration).work
        return answered(await work.progress(caller, task_id, asked.token, asked.progress, asked.note, asked.steps))

    @router.get("/tasks/{task_id}/steps", summary="Steps that earlier attempts finished", **told(StepList))
    async def steps(task_id: TaskId, token: TokenInQuery, caller: Caller) -> Response:
        return answered(StepList(data=tuple(await present(box.orchestration).claims.steps(caller, task_id, token))))

    @router.post(
        "/tasks/{task_id}/checkpoint",
        summary="Keep the executor's own state",
        **told(Checkpoint, sends=NewCheckpoint, status=201, example={"token": _TOKEN, "stateSnapshot": {"page": 12}}),
    )
    async def checkpoint(task_id: TaskId, asked: Keeping, caller: Caller) -> Response:
        work = present(box.orchestration).work
        kept = await work.checkpoint(caller, task_id, asked.token, asked.state_snapshot, asked.executed_actions, asked.remaining_plan)
        return answered(kept, 201)

    @router.post("/tasks/{task_id}/complete", summary="The result", **told(Task, sends=Completion, example={"token": _TOKEN, "result": {"sum": 42}}))
    async def complete(task_id: TaskId, asked: Completing, caller: Caller) -> Response:
        return answered(await present(box.orchestration).work.complete(caller, task_id, asked.token, asked.result, asked.metrics))

    @router.post(
        "/tasks/{task_id}/fail", summary="It did not work", **told(Task, sends=FailureReport, example={"token": _TOKEN, "error": "no such table"})
    )
    async def fail(task_id: TaskId, asked: Failing, caller: Caller) -> Response:
        work = present(box.orchestration).work
        return answered(await work.fail(caller, task_id, asked.token, asked.error, asked.diagnostics, retryable=asked.retryable))

    @router.post(
        "/tasks/{task_id}/delegate",
        summary="Make a child task",
        **told(Task, sends=Delegation, status=201, example={"token": _TOKEN, "task": {"type": "text.word_count", "key": "part-1"}}),
    )
    async def delegate(task_id: TaskId, asked: Delegating, caller: Caller) -> Response:
        return answered(await present(box.orchestration).work.delegate(caller, task_id, asked.token, asked.task), 201)

    @router.post(
        "/tasks/{task_id}/continue",
        summary="Give it back unfinished; any executor may go on",
        **told(Task, sends=Continuation, example={"token": _TOKEN, "reason": "the context is full"}),
    )
    async def continue_later(task_id: TaskId, asked: Continuing, caller: Caller) -> Response:
        claims = present(box.orchestration).claims
        return answered(await claims.continue_later(caller, task_id, asked.token, asked.checkpoint_id, asked.reason))

    @router.post(
        "/tasks/{task_id}/approvals",
        summary="Ask a person; the answer for exactly these arguments when there is one",
        **told(ApprovalRequest, sends=Question, status=201, example=QUESTION_EXAMPLE),
    )
    async def ask(task_id: TaskId, asked: Asking, caller: Caller) -> Response:
        approvals = present(box.orchestration).approvals
        made = await approvals.request(
            caller, task_id, asked.token, asked.action, asked.arguments, asked.context, asked.expires_in_seconds, asked.default_action
        )
        return answered(made, 201)

    @router.post(
        "/tasks/{task_id}/effects/{approval_id}/begin",
        summary="Before an approved action is carried out; it may run once",
        **told(EffectStanding, sends=EffectBegins, example={"token": _TOKEN}),
    )
    async def begin_effect(task_id: TaskId, approval_id: TaskId, asked: Beginning, caller: Caller) -> Response:
        outcome = await present(box.orchestration).claims.begin_effect(caller, task_id, asked.token, approval_id)
        return answered(EffectStanding(may_run=outcome is None, outcome=NULL if outcome is None else outcome))

    @router.post(
        "/tasks/{task_id}/effects/{approval_id}/finish",
        summary="The action was carried out, with this outcome",
        **told(sends=EffectOutcome, status=204, example={"token": _TOKEN, "outcome": {"deleted": 1}}),
    )
    async def finish_effect(task_id: TaskId, approval_id: TaskId, asked: Finishing, caller: Caller) -> Response:
        await present(box.orchestration).claims.finish_effect(caller, task_id, asked.token, approval_id, asked.outcome)
        return Response(status_code=204)

    return router
