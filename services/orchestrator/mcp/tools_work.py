"""The tools of an executor's loop: claim, report, save, complete, fail, delegate. One handler class each; they translate, the contract decides."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.api import ClaimState, Executors, TaskFilter, Tasks, Work
from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, StepRecord, Task, TaskSpec, TaskStatus
from appliance.identity import roles
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.orchestrator.mcp import arguments as args
from services.orchestrator.mcp.calls import Call
from services.orchestrator.mcp.claim_tokens import ClaimTokens

REQUIRES_CONTINUATION: Final = "requires_continuation"
_HELD: Final = (TaskStatus.ASSIGNED, TaskStatus.EXECUTING, TaskStatus.AWAITING_APPROVAL)
_MOST_HELD: Final = 10
_NONE: Final = "no task for you now; call claim_task again, with waitSeconds to wait for one"
_GO_ON: Final = "no new task for you; you hold these already: go on with them, unless another of your processes does"
_ANYTHING: Final = ExecutorCapabilities(supported_task_types=("*",))


class ClaimTask:
    """``claim_task``: an executor that is new is registered first. The answer brings what earlier attempts finished and saved.

    Without a task for it, the answer names those that the executor holds already: one whose answer was lost, or that it had before it was restarted.
    """

    def __init__(self, work: Work, claims: ClaimState, tasks: Tasks, executors: Executors, tokens: ClaimTokens, max_wait_seconds: float) -> None:
        self._work = work
        self._claims = claims
        self._tasks = tasks
        self._executors = executors
        self._tokens = tokens
        self._max_wait_seconds = max_wait_seconds

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.ClaimTask, call.arguments)
        capabilities = _capabilities(given.capabilities)
        task = await self._claim(call.caller, given, capabilities)
        if task is None:
            held = [await self._claimed(call.caller, one, given.executor_id) for one in await self._held(call.caller, given.executor_id)]
            return {"task": None, "held": held, "next": _GO_ON if held else _NONE}
        return await self._claimed(call.caller, task, given.executor_id)

    async def _claimed(self, caller: Principal, task: Task, executor_id: str) -> dict[str, Any]:
        self._tokens.remember(caller, task.id, executor_id, task.fencing_token)
        steps = await self._claims.steps(caller, task.id, task.fencing_token)
        checkpoint = await self._claims.load_checkpoint(caller, task.id) if task.checkpoints else None
        return {"task": task, "fencingToken": task.fencing_token, "steps": steps, "checkpoint": checkpoint}

    async def _held(self, caller: Principal, executor_id: str) -> list[Task]:
        """Looked up one by one: lists show no tokens."""
        listed = [
            one for status in _HELD for one in await self._tasks.list(caller, TaskFilter(executor=executor_id, status=status, limit=_MOST_HELD))
        ]
        found = [await self._tasks.get(caller, one.id) for one in listed[:_MOST_HELD]]
        return [task for task in found if task.assigned_executor == executor_id and task.fencing_token and task.status in _HELD]

    async def _claim(self, caller: Principal, given: args.ClaimTask, capabilities: ExecutorCapabilities | None) -> Task | None:
        wait = min(given.wait_seconds, self._max_wait_seconds)
        try:
            return await self._work.claim(caller, given.executor_id, capabilities, wait)
        except ApplianceError as error:
            if error.code != "not_found":
                raise
        await self._executors.register(
            caller, given.executor_id, given.executor_type or _kind(caller), capabilities or _ANYTHING, max_load=given.max_load
        )
        return await self._work.claim(caller, given.executor_id, capabilities, wait)


class ReportProgress:
    """``report_progress``: renews the lease. The status ``requires_continuation`` gives the task back."""

    def __init__(self, work: Work, claims: ClaimState, tokens: ClaimTokens) -> None:
        self._work = work
        self._claims = claims
        self._tokens = tokens

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.ReportProgress, call.arguments)
        token = await self._tokens.resolve(call.caller, given.task_id, given.fencing_token, given.executor_id)
        steps = [StepRecord(name=step.name, result=args.raw(step.result)) for step in given.steps]
        if given.status == REQUIRES_CONTINUATION:
            if steps:
                await self._work.progress(call.caller, given.task_id, token, given.progress, given.note, steps)
            return {"task": await self._claims.continue_later(call.caller, given.task_id, token, given.checkpoint_id, given.note)}
        note = " · ".join(part for part in (given.status, given.note) if part)
        return {"task": await self._work.progress(call.caller, given.task_id, token, given.progress, note, steps)}


class SaveCheckpoint:
    """``save_checkpoint``: durable when it returns."""

    def __init__(self, work: Work, tokens: ClaimTokens) -> None:
        self._work = work
        self._tokens = tokens

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.SaveCheckpoint, call.arguments)
        token = await self._tokens.resolve(call.caller, given.task_id, given.fencing_token, given.executor_id)
        saved = await self._work.checkpoint(
            call.caller, given.task_id, token, args.raw(given.state_snapshot), args.raw(given.executed_actions), args.raw(given.remaining_plan)
        )
        return {"checkpoint": {"id": saved.id, "taskId": saved.task_id, "sequenceNumber": saved.sequence_number, "timestamp": saved.timestamp}}


class CompleteTask:
    """``complete_task``: ``result_invalid`` leaves the task with its executor, who may correct the result."""

    def __init__(self, work: Work, tokens: ClaimTokens) -> None:
        self._work = work
        self._tokens = tokens

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.CompleteTask, call.arguments)
        token = await self._tokens.resolve(call.caller, given.task_id, given.fencing_token, given.executor_id)
        return {"task": await self._work.complete(call.caller, given.task_id, token, args.raw(given.result), args.raw(given.execution_metrics))}


class FailTask:
    """``fail_task``: it is tried again, or goes to the dead letters."""

    def __init__(self, work: Work, tokens: ClaimTokens) -> None:
        self._work = work
        self._tokens = tokens

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.FailTask, call.arguments)
        token = await self._tokens.resolve(call.caller, given.task_id, given.fencing_token, given.executor_id)
        task = await self._work.fail(call.caller, given.task_id, token, given.error, args.raw(given.diagnostics), retryable=given.retryable)
        return {"task": task}


class DelegateSubtask:
    """``delegate_subtask``: a child in the space of its parent; the same call again returns the same child."""

    def __init__(self, work: Work, tasks: Tasks, tokens: ClaimTokens) -> None:
        self._work = work
        self._tasks = tasks
        self._tokens = tokens

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.DelegateSubtask, call.arguments)
        token = await self._tokens.resolve(call.caller, given.parent_task_id, given.fencing_token, given.executor_id)
        parent = await self._tasks.get(call.caller, given.parent_task_id)
        return {"task": await self._work.delegate(call.caller, given.parent_task_id, token, _spec(given, parent))}


def _kind(caller: Principal) -> ExecutorType:
    """The type that the caller's role names; administrators, who may register any, are taken for Claude."""
    return next((kind for kind in ExecutorType if roles.agent_role(kind.value) in caller.roles), ExecutorType.CLAUDE_OPUS)


def _spec(given: args.DelegateSubtask, parent: Task) -> TaskSpec:
    return TaskSpec(
        type=given.type or parent.type,
        description=given.subtask_description,
        space=parent.space,
        input_data=args.raw(given.input_data),
        priority=given.priority,
        deadline=given.deadline,
        dependencies=tuple(given.dependencies),
        key=given.key or _key(given),
        executor_type=given.executor_type,
        output_schema=None if given.output_schema is None else args.raw(given.output_schema),
        timeout_seconds=given.timeout_seconds,
        metadata=args.raw(given.metadata),
    )


def _key(given: args.DelegateSubtask) -> str:
    """Names the subtask by what it is, whoever of the parent's executors asks: a retry finds the child of the attempt before."""
    plain = msgspec.structs.replace(given, fencing_token=None, executor_id=None)
    return f"subtask-{hashlib.sha256(msgspec.json.encode(plain, order='sorted')).hexdigest()[:32]}"


def _capabilities(given: dict[str, Any]) -> ExecutorCapabilities | None:
    if not given:
        return None
    fields = {field.encode_name for field in msgspec.structs.fields(ExecutorCapabilities)}
    if unknown := sorted(given.keys() - fields):
        raise ApplianceError("invalid_request", f"unknown capability {unknown[0][:100]!r}", hint="capabilities: " + ", ".join(sorted(fields)))
    try:
        return msgspec.convert(given, ExecutorCapabilities)
    except msgspec.ValidationError as error:
        raise ApplianceError("invalid_request", f"malformed capabilities: {error}", hint="capabilities: " + ", ".join(sorted(fields))) from error
