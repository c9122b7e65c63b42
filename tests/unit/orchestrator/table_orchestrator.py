"""An orchestrator without a log, for the tests of its edges (MCP, gRPC): one dictionary of tasks, the rules that the edges can see.

It keeps what the contract promises to a caller: foreign tasks are ``not_found``, tokens grow and fence, a decision is bound to its arguments.
What survives a crash is not its subject; the tests in ``tests/integration`` use the real composition.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time

import msgspec
from msgspec.structs import replace

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.values import (
    EMPTY,
    NULL,
    ApprovalRequest,
    ApprovalStatus,
    Checkpoint,
    Executor,
    ExecutorCapabilities,
    ExecutorStatus,
    PerformanceMetrics,
    StepRecord,
    Task,
    TaskError,
    TaskEvent,
    TaskSpec,
    TaskStatus,
)
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found

_ENDED = {TaskStatus.COMPLETED, TaskStatus.FAILED}


class TableOrchestrator:
    """State that the small classes below share; each of those is one Protocol of the contract."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.executors: dict[str, Executor] = {}
        self.steps: dict[str, dict[str, StepRecord]] = {}
        self.checkpoints: dict[str, list[Checkpoint]] = {}
        self.approvals: dict[str, ApprovalRequest] = {}
        self.effects: dict[str, msgspec.Raw | None] = {}
        self.events: list[TaskEvent] = []
        self.changed = asyncio.Condition()
        self.heartbeats: list[str] = []
        self.numbers = itertools.count(1)

    def seen(self, principal: Principal, task_id: str) -> Task:
        task = self.tasks.get(task_id)
        if task is None or task.space not in principal.spaces:
            raise not_found(f"task {task_id}")
        return task

    def held(self, principal: Principal, task_id: str, token: int) -> Task:
        task = self.seen(principal, task_id)
        executor = self.executors.get(task.assigned_executor or "")
        if task.status in _ENDED and task.fencing_token == token:
            return task
        if executor is None or task.fencing_token != token:
            raise ApplianceError("stale_claim", f"{task_id} is not claimed with this token", hint="stop")
        if executor.owner != principal.subject:
            raise not_found(f"task {task_id}")
        return task

    async def change(self, task: Task, name: str, by: str) -> Task:
        async with self.changed:
            task = replace(task, updated_at=time.time(), version=task.version + 1)
            self.tasks[task.id] = task
            data = msgspec.Raw(msgspec.json.encode({"status": task.status}))
            self.events.append(
                TaskEvent(sequence=len(self.events) + 1, at=task.updated_at, name=name, task_id=task.id, space=task.space, actor=by, data=data)
            )
            self.changed.notify_all()
        return task

    def new(self, principal: Principal, spec: TaskSpec, parent: str | None = None) -> Task:
        now = time.time()
        return Task(
            id=f"t_{next(self.numbers)}", type=spec.type, description=spec.description, input_data=spec.input_data, priority=spec.priority,
            deadline=spec.deadline, dependencies=spec.dependencies, assigned_executor=None, status=TaskStatus.PENDING, created_at=now, updated_at=now,
            checkpoints=(), metadata=spec.metadata, space=spec.space, owner=principal.subject, key=spec.key, parent=parent,
        )  # fmt: skip

    def to(self, principal: Principal, task: Task) -> Task:
        """As this caller sees it: the token only for whom its executor belongs to."""
        executor = self.executors.get(task.assigned_executor or "")
        return task if executor is not None and executor.owner == principal.subject else replace(task, fencing_token=0)


class TableTasks:
    def __init__(self, table: TableOrchestrator) -> None:
        self._table = table

    async def submit(self, principal, specs):
        return [await self._table.change(self._table.new(principal, spec), "TaskCreated", principal.subject) for spec in specs]

    async def get(self, principal, task_id):
        return self._table.to(principal, self._table.seen(principal, task_id))

    async def list(self, principal, where: TaskFilter):
        found = [
            task
            for task in self._table.tasks.values()
            if task.space in principal.spaces and where.status in {None, task.status} and where.executor in {None, task.assigned_executor}
        ]
        return [replace(task, fencing_token=0) for task in reversed(found)][: where.limit]

    async def history(self, principal, task_id):
        self._table.seen(principal, task_id)
        return [event for event in self._table.events if event.task_id == task_id]

    async def graph(self, principal, task_id):
        return [self._table.seen(principal, task_id)]

    async def wait(self, principal, task_id, timeout_seconds):
        try:
            async with asyncio.timeout(timeout_seconds), self._table.changed:
                await self._table.changed.wait_for(lambda: self._table.seen(principal, task_id).status in _ENDED)
        except TimeoutError:
            pass
        return self._table.seen(principal, task_id)


class TableWork:
    def __init__(self, table: TableOrchestrator) -> None:
        self._table = table

    async def claim(self, principal, executor_id, capabilities: ExecutorCapabilities | None = None, wait_seconds=0.0):
        executor = self._table.executors.get(executor_id)
        if executor is None or executor.owner != principal.subject:
            raise not_found(f"executor {executor_id}")
        types = (capabilities or executor.capabilities).supported_task_types
        for task in self._table.tasks.values():
            if (
                task.status in {TaskStatus.PENDING, TaskStatus.REQUIRES_CONTINUATION}
                and task.space in principal.spaces
                and {"*", task.type} & set(types)
            ):
                token = 100 + next(self._table.numbers)
                claimed = replace(task, status=TaskStatus.ASSIGNED, assigned_executor=executor_id, fencing_token=token, attempt=task.attempt + 1)
                return await self._table.change(claimed, "Assigned", principal.subject)
        return None

    async def progress(self, principal, task_id, token, progress, note="", steps=()):
        task = self._table.held(principal, task_id, token)
        if task.status in _ENDED:
            raise ApplianceError("task_state", f"{task_id} has ended", hint="stop")
        self._table.steps.setdefault(task_id, {}).update({step.name: step for step in steps})
        working = replace(task, status=TaskStatus.EXECUTING, progress=max(progress, task.progress), note=note)
        return await self._table.change(working, "ProgressReported", principal.subject)

    async def checkpoint(self, principal, task_id, token, state_snapshot, executed_actions, remaining_plan):
        task = self._table.held(principal, task_id, token)
        saved = self._table.checkpoints.setdefault(task_id, [])
        checkpoint = Checkpoint(
            id=f"c_{next(self._table.numbers)}", task_id=task_id, sequence_number=len(saved) + 1, timestamp=time.time(), state_snapshot=state_snapshot,
            executed_actions=executed_actions, remaining_plan=remaining_plan,
        )  # fmt: skip
        saved.append(checkpoint)
        await self._table.change(replace(task, checkpoints=(*task.checkpoints, checkpoint.id)), "CheckpointSaved", principal.subject)
        return checkpoint

    async def complete(self, principal, task_id, token, result, metrics=None):
        task = self._table.held(principal, task_id, token)
        return await self._table.change(replace(task, status=TaskStatus.COMPLETED, progress=1.0, result=result), "TaskCompleted", principal.subject)

    async def fail(self, principal, task_id, token, error, diagnostics=None, *, retryable=True):
        task = self._table.held(principal, task_id, token)
        told = TaskError(code="executor_failed", message=error, diagnostics=diagnostics or NULL)
        status = TaskStatus.PENDING if retryable else TaskStatus.FAILED
        executor = None if retryable else task.assigned_executor
        return await self._table.change(replace(task, status=status, error=told, assigned_executor=executor), "TaskFailed", principal.subject)

    async def delegate(self, principal, task_id, token, spec):
        parent = self._table.held(principal, task_id, token)
        for task in self._table.tasks.values():
            if task.parent == parent.id and task.key == spec.key:
                return task
        return await self._table.change(self._table.new(principal, spec, parent.id), "TaskCreated", principal.subject)


class TableClaims:
    def __init__(self, table: TableOrchestrator) -> None:
        self._table = table

    async def continue_later(self, principal, task_id, token, checkpoint_id, reason):
        task = self._table.held(principal, task_id, token)
        given_back = replace(task, status=TaskStatus.REQUIRES_CONTINUATION, assigned_executor=None, note=reason)
        return await self._table.change(given_back, "ContinuationRequired", principal.subject)

    async def steps(self, principal, task_id, token):
        self._table.held(principal, task_id, token)
        return list(self._table.steps.get(task_id, {}).values())

    async def load_checkpoint(self, principal, task_id, checkpoint_id=None):
        self._table.seen(principal, task_id)
        return next((one for one in reversed(self._table.checkpoints.get(task_id, ())) if checkpoint_id in {None, one.id}), None)

    async def begin_effect(self, principal, task_id, token, approval_id):
        self._table.held(principal, task_id, token)
        if approval_id not in self._table.effects:
            self._table.effects[approval_id] = None
            return None
        if self._table.effects[approval_id] is None:
            raise ApplianceError("effect_unknown", f"{approval_id} was begun before", hint="a person must look")
        return self._table.effects[approval_id]

    async def finish_effect(self, principal, task_id, token, approval_id, outcome):
        self._table.held(principal, task_id, token)
        self._table.effects[approval_id] = outcome


class TableApprovals:
    def __init__(self, table: TableOrchestrator) -> None:
        self._table = table
        self.asked = 0

    async def request(
        self, principal, task_id, token, action, arguments, context=None, expires_in_seconds=None, default_action="reject"
    ):  # fmt: skip
        task = self._table.held(principal, task_id, token)
        canonical = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted")
        digest = hashlib.sha256(canonical).hexdigest()
        for standing in self._table.approvals.values():
            if (standing.task_id, standing.action, standing.arguments_digest) == (task_id, action, digest):
                return standing
        self.asked += 1
        request = ApprovalRequest(
            id=f"a_{next(self._table.numbers)}", task_id=task_id, space=task.space, action=action, arguments=arguments, arguments_digest=digest,
            context=context or EMPTY, requested_by=principal.subject, requested_at=time.time(), expires_at=None, default_action=default_action,
            status=ApprovalStatus.PENDING,
        )  # fmt: skip
        self._table.approvals[request.id] = request
        await self._table.change(replace(task, status=TaskStatus.AWAITING_APPROVAL), "ApprovalRequested", principal.subject)
        return request

    async def wait(self, principal, approval_id, timeout_seconds):
        try:
            async with asyncio.timeout(timeout_seconds), self._table.changed:
                await self._table.changed.wait_for(lambda: self._table.approvals[approval_id].status is not ApprovalStatus.PENDING)
        except TimeoutError:
            pass
        return self._table.approvals[approval_id]

    async def list(self, principal, *, pending_only=True, space=None, limit=100):
        wanted = [one for one in self._table.approvals.values() if not pending_only or one.status is ApprovalStatus.PENDING]
        return [one for one in wanted if one.space in principal.spaces and space in {None, one.space}][:limit]

    async def decide(self, principal, approval_id, decision, reason="", modified_arguments=None, grant="once"):
        request = self._table.approvals[approval_id]
        status = ApprovalStatus.REJECTED if decision == "reject" else ApprovalStatus.MODIFIED if modified_arguments else ApprovalStatus.APPROVED
        decided = replace(request, status=status, reason=reason, decided_by=principal.subject, modified_arguments=modified_arguments)
        self._table.approvals[approval_id] = decided
        await self._table.change(replace(self._table.tasks[request.task_id], status=TaskStatus.EXECUTING), "ApprovalDecided", principal.subject)
        return decided

    async def policies(self, principal, space):
        return [{"action": "mail.*", "mode": "ASK", "source": "space"}]

    async def set_policy(self, principal, space, action, mode):
        return None


class TableExecutors:
    def __init__(self, table: TableOrchestrator) -> None:
        self._table = table

    async def register(self, principal, executor_id, executor_type, capabilities, *, name="", version="", endpoint="", max_load=1):
        executor = Executor(
            id=executor_id, type=executor_type, name=name, capabilities=capabilities, status=ExecutorStatus.ONLINE, current_load=0,
            performance_metrics=PerformanceMetrics(), version=version, endpoint=endpoint, max_load=max_load, owner=principal.subject, seen_at=time.time(),
        )  # fmt: skip
        self._table.executors[executor_id] = executor
        return executor

    async def heartbeat(self, principal, executor_id):
        self._table.heartbeats.append(executor_id)
        return self._table.executors[executor_id]

    async def unregister(self, principal, executor_id):
        self._table.executors.pop(executor_id, None)

    async def list(self, principal):
        return list(self._table.executors.values())

    async def set_status(self, principal, executor_id, status):
        self._table.executors[executor_id] = replace(self._table.executors[executor_id], status=status)
        return self._table.executors[executor_id]


class TableFeed:
    def __init__(self, table: TableOrchestrator) -> None:
        self._table = table

    async def follow(self, principal, after=None, task_id=None, space=None):
        at = len(self._table.events) if after is None else after
        while True:
            async with self._table.changed:
                await self._table.changed.wait_for(lambda: len(self._table.events) > at)
            for event in self._table.events[at:]:
                at = event.sequence
                if event.space in principal.spaces and task_id in {None, event.task_id}:
                    yield event
