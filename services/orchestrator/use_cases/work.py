"""Work for executors outside the process: claim, report, checkpoint, delegate (``Work`` and ``ClaimState`` of the contract)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import (
    EMPTY,
    NULL,
    Checkpoint,
    ExecutorCapabilities,
    ExecutorStatus,
    StepRecord,
    Task,
    TaskError,
    TaskSpec,
)
from appliance.identity.permissions import Resource, Verb
from appliance.identity.principal import Principal
from appliance.identity.task_rights import claimable_spaces
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.dispatch import ClaimTerms, Dispatch
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.claims import stale
from services.orchestrator.domain.events import ExecutorRegistered, ExecutorStatusChanged
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.guardian import Guardian
from services.orchestrator.offers import offer_of
from services.orchestrator.replica import Replica
from services.orchestrator.rights import Rights
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.task_checkpoints import TaskCheckpoints
from services.orchestrator.use_cases.executors import check_capabilities, kept_status, offered_spaces
from services.orchestrator.use_cases.submit_tasks import SubmitTasks
from services.orchestrator.views import task_view

MOST_WAIT_SECONDS: Final = 60.0
MOST_STEPS_AT_ONCE: Final = 100
Verify = Callable[[TaskState, msgspec.Raw], Awaitable[None]]


class WorkDesk:
    """See the module."""

    def __init__(
        self, replica: Replica, rights: Rights, dispatch: Dispatch, guardian: Guardian, submitting: SubmitTasks, checkpoints: TaskCheckpoints,
        verify: Verify, settings: OrchestratorSettings,
    ) -> None:  # fmt: skip
        self._replica = replica
        self._projection = replica.projection
        self._rights = rights
        self._dispatch = dispatch
        self._guardian = guardian
        self._submitting = submitting
        self._checkpoints = checkpoints
        self._verify = verify
        self._settings = settings
        self._terms = ClaimTerms(settings.external_lease_seconds, started=False)

    async def claim(
        self, principal: Principal, executor_id: str, capabilities: ExecutorCapabilities | None = None, wait_seconds: float = 0.0
    ) -> Task | None:
        """See the contract. ``capabilities`` replace the registered ones when they differ."""
        executor = await self._own_executor(principal, executor_id)
        if capabilities is not None and capabilities != executor.capabilities:
            executor = await self._registered_anew(principal, executor, capabilities)
        until = self._replica.now() + min(max(wait_seconds, 0.0), MOST_WAIT_SECONDS)
        while True:
            executor = await self._own_executor(principal, executor_id)
            load = len(self._projection.held.get(executor_id, ()))
            if load < executor.max_load:
                spaces = None if principal.is_admin else claimable_spaces(principal)
                state = await self._dispatch.claim(executor, offer_of(executor, load, spaces), self._terms, by=principal.subject)
                if state is not None:
                    return task_view(state, self._projection, with_token=True)
            left = until - self._replica.now()
            if left <= 0:
                return None
            await self._dispatch.until_wanted(min(left, 1.0))

    async def progress(
        self, principal: Principal, task_id: str, token: int, progress: float, note: str = "", steps: Sequence[StepRecord] = ()
    ) -> Task:
        """See the contract."""
        await self._held(principal, task_id)
        if len(steps) > MOST_STEPS_AT_ONCE or len(note) > 2000:
            raise ApplianceError("too_large", f"a report has at most {MOST_STEPS_AT_ONCE} steps and 2000 characters of note")
        self._check_size("steps", sum(len(bytes(step.result)) for step in steps), self._settings.max_result_bytes)
        command = cm.Report(
            token=token, lease_until=self._replica.now() + self._settings.external_lease_seconds, progress=progress, note=note or None,
            steps=tuple(steps),
        )  # fmt: skip
        return await self._done(principal, task_id, command)

    async def checkpoint(
        self, principal: Principal, task_id: str, token: int, state_snapshot: msgspec.Raw, executed_actions: msgspec.Raw, remaining_plan: msgspec.Raw
    ) -> Checkpoint:
        """See the contract."""
        state = await self._held(principal, task_id)
        self._rights.require(principal, Verb.CREATE, state, Resource.CHECKPOINT)
        return await self._checkpoints.save(task_id, token, state_snapshot, executed_actions, remaining_plan, by=principal.subject)

    async def complete(self, principal: Principal, task_id: str, token: int, result: msgspec.Raw, metrics: msgspec.Raw | None = None) -> Task:
        """See the contract."""
        state = await self._held(principal, task_id)
        self._check_size("result", len(bytes(result)), self._settings.max_result_bytes)
        self._check_size("metrics", len(bytes(metrics or EMPTY)), 65_536)
        if not state.is_terminal:
            await self._verify(state, result)
        return await self._done(principal, task_id, cm.Complete(token=token, result=result, metrics=metrics or EMPTY))

    async def fail(
        self, principal: Principal, task_id: str, token: int, error: str, diagnostics: msgspec.Raw | None = None, *, retryable: bool = True
    ) -> Task:
        """See the contract."""
        await self._held(principal, task_id)
        self._check_size("diagnostics", len(bytes(diagnostics or NULL)), 65_536)
        failure = TaskError(code="executor_failed", message=error[:2000], diagnostics=diagnostics or NULL)
        jitter = random.uniform(-1, 1)  # noqa: S311 - spreads retries
        return await self._done(principal, task_id, cm.Fail(token=token, error=failure, retryable=retryable, jitter=jitter))

    async def delegate(self, principal: Principal, task_id: str, token: int, spec: TaskSpec) -> Task:
        """See the contract. The child lives where its parent lives and belongs to whom the parent belongs."""
        state = await self._held(principal, task_id, token)
        child = msgspec.structs.replace(spec, space=state.space)
        self._rights.require(principal, Verb.CREATE, state)
        (task,) = await self._submitting.make(principal, [child], f"{state.owner}", by=principal.subject, parent=task_id)
        return task

    async def continue_later(self, principal: Principal, task_id: str, token: int, checkpoint_id: str | None, reason: str) -> Task:
        """See the contract."""
        state = await self._held(principal, task_id)
        if checkpoint_id is not None and checkpoint_id not in {ref.id for ref in state.checkpoints}:
            raise not_found("checkpoint")
        return await self._done(principal, task_id, cm.ContinueLater(token=token, reason=reason[:2000], checkpoint=checkpoint_id))

    async def steps(self, principal: Principal, task_id: str, token: int) -> Sequence[StepRecord]:
        """See the contract."""
        state = await self._held(principal, task_id, token)
        return [StepRecord(name=name, result=result) for name, result in state.steps.items()]

    async def load_checkpoint(self, principal: Principal, task_id: str, checkpoint_id: str | None = None) -> Checkpoint | None:
        """See the contract."""
        state = self._rights.require(principal, Verb.READ, await self._replica.state(task_id))
        self._rights.require(principal, Verb.READ, state, Resource.CHECKPOINT)
        wanted = checkpoint_id or state.restart_from
        return await self._checkpoints.resolve(state, wanted) if wanted is not None else None

    async def begin_effect(self, principal: Principal, task_id: str, token: int, approval_id: str) -> msgspec.Raw | None:
        """See the contract."""
        await self._held(principal, task_id)
        command = cm.BeginEffect(token=token, approval=approval_id)
        state = await self._replica.execute(task_id, None, command, by=principal.subject)
        approval = state.approval(approval_id)
        return approval.outcome if approval is not None and approval.effect == "finished" else None

    async def finish_effect(self, principal: Principal, task_id: str, token: int, approval_id: str, outcome: msgspec.Raw) -> None:
        """See the contract."""
        await self._held(principal, task_id)
        self._check_size("outcome", len(bytes(outcome)), 65_536)
        await self._replica.execute(task_id, None, cm.FinishEffect(token=token, approval=approval_id, outcome=outcome), by=principal.subject)

    async def _own_executor(self, principal: Principal, executor_id: str) -> ExecutorState:
        executor = self._projection.executors.get(executor_id)
        if executor is None or executor.gone:  # it may have registered with another replica just now
            await self._replica.sync()
            executor = self._projection.executors.get(executor_id)
        if executor is None or executor.gone or not (principal.is_admin or executor.owner == principal.subject):
            raise not_found("executor")
        if executor.status is ExecutorStatus.DISABLED:
            raise ApplianceError("forbidden", "an operator has disabled this executor", hint="ask an operator")
        return executor

    async def _registered_anew(self, principal: Principal, executor: ExecutorState, capabilities: ExecutorCapabilities) -> ExecutorState:
        """Other capabilities, same run: what it holds stays its own."""
        check_capabilities(capabilities)
        spaces = offered_spaces(principal)

        def decide(known: ExecutorState | None) -> tuple[ExecutorRegistered | ExecutorStatusChanged, ...]:
            base = known or executor
            if base.gone or base.owner != executor.owner:
                raise not_found("executor")
            registered = ExecutorRegistered(
                type=base.type, capabilities=capabilities, executor_name=base.name, version=base.version, endpoint=base.endpoint,
                max_load=base.max_load, owner=base.owner, incarnation=base.incarnation, replica=base.replica, owned_since=base.owned_since,
                spaces=spaces,
            )  # fmt: skip
            return (registered, *kept_status(base))

        return await self._replica.change_executor(executor.id, decide, by=principal.subject)

    async def _held(self, principal: Principal, task_id: str, token: int | None = None) -> TaskState:
        """The task, when the caller's executor has it or had it, and (with ``token``) when this claim holds. Claims of other replicas are waited for."""
        try:
            return self._checked(principal, await self._replica.state(task_id), token)
        except ApplianceError:
            await self._replica.sync()
        return self._checked(principal, await self._replica.state(task_id), token)

    def _checked(self, principal: Principal, state: TaskState | None, token: int | None) -> TaskState:
        held = self._rights.require_holder(principal, state)
        if token is not None and (not held.is_held or held.token != token):
            raise stale(held)
        return held

    async def _done(self, principal: Principal, task_id: str, command: cm.Command) -> Task:
        state = await self._replica.execute(task_id, None, command, by=principal.subject)
        return task_view(state, self._projection, with_token=True)

    @staticmethod
    def _check_size(what: str, size: int, most: int) -> None:
        if size > most:
            raise ApplianceError("too_large", f"{what} has at most {most} bytes", hint="store large data as a document and pass its id")
