"""The orchestrator, version 1, as its edges (REST, gRPC, MCP, CLI) and subscribers call it.

Every call names the principal: rights are checked where the data is. What may not be seen is ``not_found``. Every method raises ApplianceError; besides the
codes of its docstring: ``unavailable`` and ``overloaded`` may be tried again, and nothing was acknowledged.

Commands are idempotent: a repeated one (same key, same fencing token and content) returns what the first returned.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from appliance.contracts.orchestrator.v1.values import (
    ApprovalRequest,
    Checkpoint,
    Executor,
    ExecutorCapabilities,
    ExecutorStatus,
    ExecutorType,
    StepRecord,
    Task,
    TaskEvent,
    TaskSpec,
    TaskStatus,
)
from appliance.identity.principal import Principal


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a list shows: newest first, ``before`` (id) pages on; at most ``limit`` (1–500)."""

    space: str | None = None
    status: TaskStatus | None = None
    type: str | None = None
    executor: str | None = None
    parent: str | None = None
    before: str | None = None
    limit: int = 50


class Tasks(Protocol):
    """For whoever wants something done."""

    async def submit(self, principal: Principal, specs: Sequence[TaskSpec]) -> Sequence[Task]:
        """Make tasks, all or none. Raises ``task_invalid`` (cycle, unknown dependency, schema), ``too_large``, ``not_found`` (space), ``overloaded``."""
        ...

    async def get(self, principal: Principal, task_id: str) -> Task:
        """One task; ``not_found``."""
        ...

    async def list(self, principal: Principal, where: TaskFilter) -> Sequence[Task]:
        """Those the caller may read."""
        ...

    async def history(self, principal: Principal, task_id: str) -> Sequence[TaskEvent]:
        """Everything that happened to it, oldest first."""
        ...

    async def graph(self, principal: Principal, task_id: str) -> Sequence[Task]:
        """The task with all that it depends on, that depends on it, its children and its parents (at most 1,000)."""
        ...

    async def wait(self, principal: Principal, task_id: str, timeout_seconds: float) -> Task:
        """The task as soon as it is terminal, or as it is when the time is over."""
        ...


class TaskControl(Protocol):
    """For owners and operators. Raises ``task_state`` when the task's status does not allow it."""

    async def cancel(self, principal: Principal, task_id: str, reason: str = "") -> Task:
        """End it; its executor is told. Dependents fail with ``dependency_failed``."""
        ...

    async def pause(self, principal: Principal, task_id: str) -> Task:
        """Take it from its executor and hold it."""
        ...

    async def resume(self, principal: Principal, task_id: str) -> Task:
        """Go on after ``pause``."""
        ...

    async def retry(self, principal: Principal, task_id: str) -> Task:
        """Reopen a failed task (and those that failed because of it) with fresh attempts; finished steps stay finished."""
        ...

    async def fork(self, principal: Principal, task_id: str, checkpoint_id: str | None = None, input_data: msgspec.Raw | None = None) -> Task:
        """A new task from where ``task_id`` stood at a checkpoint (None: from its input, with the steps finished so far)."""
        ...

    async def set_priority(self, principal: Principal, task_id: str, priority: int) -> Task:
        """0–100."""
        ...


class Work(Protocol):
    """For executors. ``token`` is the fencing token of the claim: a stale one is ``stale_claim``; a foreign task is ``not_found``."""

    async def claim(
        self, principal: Principal, executor_id: str, capabilities: ExecutorCapabilities | None = None, wait_seconds: float = 0.0
    ) -> Task | None:
        """The best task for this executor, now assigned to it; None when there is none within ``wait_seconds``."""
        ...

    async def progress(
        self, principal: Principal, task_id: str, token: int, progress: float, note: str = "", steps: Sequence[StepRecord] = ()
    ) -> Task:
        """Say that the work goes on: renews the lease, records finished ``steps``. Progress is 0–1 and never falls within an attempt."""
        ...

    async def checkpoint(
        self, principal: Principal, task_id: str, token: int, state_snapshot: msgspec.Raw, executed_actions: msgspec.Raw, remaining_plan: msgspec.Raw
    ) -> Checkpoint:
        """Keep the executor's own state; stored before it is acknowledged."""
        ...

    async def complete(self, principal: Principal, task_id: str, token: int, result: msgspec.Raw, metrics: msgspec.Raw | None = None) -> Task:
        """The result; verified against the output schema (``result_invalid`` tells why, the task stays with its executor)."""
        ...

    async def fail(
        self, principal: Principal, task_id: str, token: int, error: str, diagnostics: msgspec.Raw | None = None, *, retryable: bool = True
    ) -> Task:
        """It did not work: retried with backoff, or dead-lettered."""
        ...

    async def delegate(self, principal: Principal, task_id: str, token: int, spec: TaskSpec) -> Task:
        """A child task in the same space. ``key`` makes it idempotent."""
        ...


class ClaimState(Protocol):
    """The less frequent calls of executors."""

    async def continue_later(self, principal: Principal, task_id: str, token: int, checkpoint_id: str | None, reason: str) -> Task:
        """Give it back unfinished (context or time is used up): ``requires_continuation``, any executor may go on."""
        ...

    async def steps(self, principal: Principal, task_id: str, token: int) -> Sequence[StepRecord]:
        """Steps that earlier attempts finished."""
        ...

    async def load_checkpoint(self, principal: Principal, task_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """A checkpoint, resolved; None = the newest, None when there is none."""
        ...

    async def begin_effect(self, principal: Principal, task_id: str, token: int, approval_id: str) -> msgspec.Raw | None:
        """Before an approved action is carried out: after this returns None it may be done, once. What it returned when it is done already.

        Raises ``effect_unknown`` when it was begun before and nobody knows how it ended: a person must decide.
        """
        ...

    async def finish_effect(self, principal: Principal, task_id: str, token: int, approval_id: str, outcome: msgspec.Raw) -> None:
        """The action is done, with this outcome."""
        ...


class Approvals(Protocol):
    """Questions to people."""

    async def request(
        self,
        principal: Principal,
        task_id: str,
        token: int,
        action: str,
        arguments: msgspec.Raw,
        context: msgspec.Raw | None = None,
        expires_in_seconds: float | None = None,
        default_action: str = "reject",
    ) -> ApprovalRequest:
        """Ask, or get the standing answer for exactly this action and these arguments. Policies may answer at once."""
        ...

    async def wait(self, principal: Principal, approval_id: str, timeout_seconds: float) -> ApprovalRequest:
        """The request as soon as it is decided, or as it is when the time is over. Ask again after a reconnect."""
        ...

    async def list(self, principal: Principal, *, pending_only: bool = True, space: str | None = None, limit: int = 100) -> Sequence[ApprovalRequest]:
        """The queue, oldest first."""
        ...

    async def decide(
        self,
        principal: Principal,
        approval_id: str,
        decision: str,
        reason: str = "",
        modified_arguments: msgspec.Raw | None = None,
        grant: str = "once",
    ) -> ApprovalRequest:
        """``approve`` or ``reject``; ``grant`` ``once``, ``session`` (this task and its children) or ``always`` (this action in this space)."""
        ...

    async def policies(self, principal: Principal, space: str) -> Sequence[dict[str, Any]]:
        """Rules of a space: ``{action, mode: ALWAYS|ASK|DENY, source}``, and suggestions from the history of decisions."""
        ...

    async def set_policy(self, principal: Principal, space: str, action: str, mode: str | None) -> None:
        """Set or (None) remove a rule; ``action`` may end in ``*``."""
        ...


class Executors(Protocol):
    """The registry."""

    async def register(
        self,
        principal: Principal,
        executor_id: str,
        executor_type: ExecutorType,
        capabilities: ExecutorCapabilities,
        *,
        name: str = "",
        version: str = "",
        endpoint: str = "",
        max_load: int = 1,
    ) -> Executor:
        """Make it known, or online again. A new registration ends the claims of an earlier run of the same executor."""
        ...

    async def heartbeat(self, principal: Principal, executor_id: str) -> Executor:
        """Renews the leases of everything it holds."""
        ...

    async def unregister(self, principal: Principal, executor_id: str) -> None:
        """It leaves; what it held is free again."""
        ...

    async def list(self, principal: Principal) -> Sequence[Executor]:
        """All of them."""
        ...

    async def set_status(self, principal: Principal, executor_id: str, status: ExecutorStatus) -> Executor:
        """Operators: ``disabled``, ``draining``, ``online``."""
        ...


class Feed(Protocol):
    """What happens, as it happens."""

    def follow(
        self, principal: Principal, after: int | None = None, task_id: str | None = None, space: str | None = None
    ) -> AsyncIterator[TaskEvent]:
        """Events the caller may see; ``after`` takes up a broken feed, None begins now. A slow reader is cut off with ``overloaded`` and takes up again."""
        ...


class Schedules(Protocol):
    """Background agents: tasks that are made by the clock or by events."""

    async def put(self, principal: Principal, name: str, trigger: dict[str, Any], spec: TaskSpec) -> dict[str, Any]:
        """``trigger``: ``{"cron": "0 7 * * 1-5", "timezone": "Europe/Moscow"}``, ``{"everySeconds": 60}`` or ``{"event": "TaskFailed", "taskType": "…"}``."""
        ...

    async def list(self, principal: Principal, space: str | None = None) -> Sequence[dict[str, Any]]:
        """Name, trigger, spec, when it fired last and fires next."""
        ...

    async def delete(self, principal: Principal, space: str, name: str) -> None:
        """No more."""
        ...
