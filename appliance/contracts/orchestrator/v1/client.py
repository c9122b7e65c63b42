"""The orchestrator over gRPC: one class per Protocol of ``api``, each method an rpc. ``OrchestratorClient(channel, bearer_of)`` holds them all.

``bearer_of`` names the credential that stands for a principal. A program with one key of its own uses ``one_key(key)``; a process that serves several
callers must pass on the credential of each, or all of them would have the rights of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from appliance.contracts.orchestrator.v1 import api, orchestrator_pb2
from appliance.contracts.orchestrator.v1.api import TaskFilter
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
)
from appliance.identity.principal import Principal
from appliance.kit.rpc_contract import BearerOf, Remote

_SERVICES: Final[Mapping[str, Any]] = orchestrator_pb2.DESCRIPTOR.services_by_name
PROTOCOLS: Final[Mapping[str, type]] = {
    "Tasks": api.Tasks,
    "TaskControl": api.TaskControl,
    "Work": api.Work,
    "ClaimState": api.ClaimState,
    "Approvals": api.Approvals,
    "Executors": api.Executors,
    "Feed": api.Feed,
    "Schedules": api.Schedules,
}
"""Service of the .proto → Protocol."""


def service(name: str) -> Any:
    """The descriptor of a service."""
    return _SERVICES[name]


def one_key(key: str) -> BearerOf:
    """Every call with the same key: the principal of a call is then whoever the key belongs to."""
    return lambda _principal: key


class OrchestratorClient:
    """All services over one channel (``appliance.kit.grpc.open_channel``)."""

    def __init__(self, channel: Any, bearer_of: BearerOf) -> None:
        def remote(name: str) -> Remote:
            return Remote(channel, service(name), PROTOCOLS[name], bearer_of)

        self.tasks: api.Tasks = _Tasks(remote("Tasks"))
        self.control: api.TaskControl = _TaskControl(remote("TaskControl"))
        self.work: api.Work = _Work(remote("Work"))
        self.claims: api.ClaimState = _ClaimState(remote("ClaimState"))
        self.approvals: api.Approvals = _Approvals(remote("Approvals"))
        self.executors: api.Executors = _Executors(remote("Executors"))
        self.feed: api.Feed = _Feed(remote("Feed"))
        self.schedules: api.Schedules = _Schedules(remote("Schedules"))


class _Tasks:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def submit(self, principal: Principal, specs: Sequence[TaskSpec]) -> Sequence[Task]:
        return cast("Sequence[Task]", await self._remote.call("submit", principal, specs=specs))

    async def get(self, principal: Principal, task_id: str) -> Task:
        return cast("Task", await self._remote.call("get", principal, task_id=task_id))

    async def list(self, principal: Principal, where: TaskFilter) -> Sequence[Task]:
        return cast("Sequence[Task]", await self._remote.call("list", principal, where=where))

    async def history(self, principal: Principal, task_id: str) -> Sequence[TaskEvent]:
        return cast("Sequence[TaskEvent]", await self._remote.call("history", principal, task_id=task_id))

    async def graph(self, principal: Principal, task_id: str) -> Sequence[Task]:
        return cast("Sequence[Task]", await self._remote.call("graph", principal, task_id=task_id))

    async def wait(self, principal: Principal, task_id: str, timeout_seconds: float) -> Task:
        return cast("Task", await self._remote.call("wait", principal, task_id=task_id, timeout_seconds=timeout_seconds))


class _TaskControl:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def cancel(self, principal: Principal, task_id: str, reason: str = "") -> Task:
        return cast("Task", await self._remote.call("cancel", principal, task_id=task_id, reason=reason))

    async def pause(self, principal: Principal, task_id: str) -> Task:
        return cast("Task", await self._remote.call("pause", principal, task_id=task_id))

    async def resume(self, principal: Principal, task_id: str) -> Task:
        return cast("Task", await self._remote.call("resume", principal, task_id=task_id))

    async def retry(self, principal: Principal, task_id: str) -> Task:
        return cast("Task", await self._remote.call("retry", principal, task_id=task_id))

    async def fork(self, principal: Principal, task_id: str, checkpoint_id: str | None = None, input_data: msgspec.Raw | None = None) -> Task:
        return cast("Task", await self._remote.call("fork", principal, task_id=task_id, checkpoint_id=checkpoint_id, input_data=input_data))

    async def set_priority(self, principal: Principal, task_id: str, priority: int) -> Task:
        return cast("Task", await self._remote.call("set_priority", principal, task_id=task_id, priority=priority))


class _Work:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def claim(
        self, principal: Principal, executor_id: str, capabilities: ExecutorCapabilities | None = None, wait_seconds: float = 0.0
    ) -> Task | None:
        return cast(
            "Task | None", await self._remote.call("claim", principal, executor_id=executor_id, capabilities=capabilities, wait_seconds=wait_seconds)
        )

    async def progress(
        self, principal: Principal, task_id: str, token: int, progress: float, note: str = "", steps: Sequence[StepRecord] = ()
    ) -> Task:
        return cast("Task", await self._remote.call("progress", principal, task_id=task_id, token=token, progress=progress, note=note, steps=steps))

    async def checkpoint(
        self, principal: Principal, task_id: str, token: int, state_snapshot: msgspec.Raw, executed_actions: msgspec.Raw, remaining_plan: msgspec.Raw
    ) -> Checkpoint:
        return cast(
            "Checkpoint",
            await self._remote.call(
                "checkpoint",
                principal,
                task_id=task_id,
                token=token,
                state_snapshot=state_snapshot,
                executed_actions=executed_actions,
                remaining_plan=remaining_plan,
            ),
        )

    async def complete(self, principal: Principal, task_id: str, token: int, result: msgspec.Raw, metrics: msgspec.Raw | None = None) -> Task:
        return cast("Task", await self._remote.call("complete", principal, task_id=task_id, token=token, result=result, metrics=metrics))

    async def fail(
        self, principal: Principal, task_id: str, token: int, error: str, diagnostics: msgspec.Raw | None = None, *, retryable: bool = True
    ) -> Task:
        return cast(
            "Task",
            await self._remote.call("fail", principal, task_id=task_id, token=token, error=error, diagnostics=diagnostics, retryable=retryable),
        )

    async def delegate(self, principal: Principal, task_id: str, token: int, spec: TaskSpec) -> Task:
        return cast("Task", await self._remote.call("delegate", principal, task_id=task_id, token=token, spec=spec))


class _ClaimState:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def continue_later(self, principal: Principal, task_id: str, token: int, checkpoint_id: str | None, reason: str) -> Task:
        return cast(
            "Task", await self._remote.call("continue_later", principal, task_id=task_id, token=token, checkpoint_id=checkpoint_id, reason=reason)
        )

    async def steps(self, principal: Principal, task_id: str, token: int) -> Sequence[StepRecord]:
        return cast("Sequence[StepRecord]", await self._remote.call("steps", principal, task_id=task_id, token=token))

    async def load_checkpoint(self, principal: Principal, task_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        return cast("Checkpoint | None", await self._remote.call("load_checkpoint", principal, task_id=task_id, checkpoint_id=checkpoint_id))

    async def begin_effect(self, principal: Principal, task_id: str, token: int, approval_id: str) -> msgspec.Raw | None:
        return cast("msgspec.Raw | None", await self._remote.call("begin_effect", principal, task_id=task_id, token=token, approval_id=approval_id))

    async def finish_effect(self, principal: Principal, task_id: str, token: int, approval_id: str, outcome: msgspec.Raw) -> None:
        await self._remote.call("finish_effect", principal, task_id=task_id, token=token, approval_id=approval_id, outcome=outcome)


class _Approvals:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

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
        return cast(
            "ApprovalRequest",
            await self._remote.call(
                "request",
                principal,
                task_id=task_id,
                token=token,
                action=action,
                arguments=arguments,
                context=context,
                expires_in_seconds=expires_in_seconds,
                default_action=default_action,
            ),
        )

    async def wait(self, principal: Principal, approval_id: str, timeout_seconds: float) -> ApprovalRequest:
        return cast("ApprovalRequest", await self._remote.call("wait", principal, approval_id=approval_id, timeout_seconds=timeout_seconds))

    async def list(self, principal: Principal, *, pending_only: bool = True, space: str | None = None, limit: int = 100) -> Sequence[ApprovalRequest]:
        return cast("Sequence[ApprovalRequest]", await self._remote.call("list", principal, pending_only=pending_only, space=space, limit=limit))

    async def decide(
        self,
        principal: Principal,
        approval_id: str,
        decision: str,
        reason: str = "",
        modified_arguments: msgspec.Raw | None = None,
        grant: str = "once",
    ) -> ApprovalRequest:
        return cast(
            "ApprovalRequest",
            await self._remote.call(
                "decide", principal, approval_id=approval_id, decision=decision, reason=reason, modified_arguments=modified_arguments, grant=grant
            ),
        )

    async def policies(self, principal: Principal, space: str) -> Sequence[dict[str, Any]]:
        return cast("Sequence[dict[str, Any]]", await self._remote.call("policies", principal, space=space))

    async def set_policy(self, principal: Principal, space: str, action: str, mode: str | None) -> None:
        await self._remote.call("set_policy", principal, space=space, action=action, mode=mode)


class _Executors:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

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
        return cast(
            "Executor",
            await self._remote.call(
                "register",
                principal,
                executor_id=executor_id,
                executor_type=executor_type,
                capabilities=capabilities,
                name=name,
                version=version,
                endpoint=endpoint,
                max_load=max_load,
            ),
        )

    async def heartbeat(self, principal: Principal, executor_id: str) -> Executor:
        return cast("Executor", await self._remote.call("heartbeat", principal, executor_id=executor_id))

    async def unregister(self, principal: Principal, executor_id: str) -> None:
        await self._remote.call("unregister", principal, executor_id=executor_id)

    async def list(self, principal: Principal) -> Sequence[Executor]:
        return cast("Sequence[Executor]", await self._remote.call("list", principal))

    async def set_status(self, principal: Principal, executor_id: str, status: ExecutorStatus) -> Executor:
        return cast("Executor", await self._remote.call("set_status", principal, executor_id=executor_id, status=status))


class _Feed:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def follow(
        self, principal: Principal, after: int | None = None, task_id: str | None = None, space: str | None = None
    ) -> AsyncIterator[TaskEvent]:
        return self._remote.stream("follow", principal, after=after, task_id=task_id, space=space)


class _Schedules:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def put(self, principal: Principal, name: str, trigger: dict[str, Any], spec: TaskSpec) -> dict[str, Any]:
        return cast("dict[str, Any]", await self._remote.call("put", principal, name=name, trigger=trigger, spec=spec))

    async def list(self, principal: Principal, space: str | None = None) -> Sequence[dict[str, Any]]:
        return cast("Sequence[dict[str, Any]]", await self._remote.call("list", principal, space=space))

    async def delete(self, principal: Principal, space: str, name: str) -> None:
        await self._remote.call("delete", principal, space=space, name=name)
