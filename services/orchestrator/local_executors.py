"""The executors that this process runs itself: registered, renewed, given work, stopped. One per adapter, named ``<kind>@<replica>``.

Invariants:
1. A registration raises the incarnation: claims of an earlier run of the same name are void from then on.
2. A claim that ended elsewhere (cancelled, paused, expired) is stopped here; its late reports are refused by the log anyway.
3. Whatever an adapter does, its claim ends with a report or with its lease; a report that cannot be delivered is repeated until then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorStatus, ExecutorType, TaskError
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.claim_context import ClaimContext
from services.orchestrator.dispatch import ClaimTerms, Dispatch
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import Assigned, Envelope, ExecutorRegistered
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.offers import offer_of
from services.orchestrator.ports import ContinueLaterError, ExecutionFailedError, ExecutorAdapter, Leases, NamesModels
from services.orchestrator.replica import Replica
from services.orchestrator.scheduling.ready_task import takes
from services.orchestrator.views import task_view

RENEWALS_PER_LEASE: Final = 3
RETRY_SECONDS: Final = 0.25
_NOT_ITS_FAULT: Final = frozenset({"unavailable", "overloaded", "disk_full"})
_log = get_logger(__name__)
MakeContext = Callable[[TaskState, str], ClaimContext]
Verify = Callable[[TaskState, msgspec.Raw], Awaitable[None]]


class LocalExecutor:
    """One adapter as an executor of the registry."""

    def __init__(self, adapter: ExecutorAdapter, replica_name: str) -> None:
        self.adapter = adapter
        self.id = f"{adapter.kind}@{replica_name}"
        self.by = f"service:executor:{self.id}"
        self.state: ExecutorState | None = None
        self.offered: ExecutorCapabilities | None = None
        self.models = adapter.models if isinstance(adapter, NamesModels) else None
        self.running: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self.claiming = 0

    @property
    def free(self) -> int:
        """Slots without a task."""
        return self.adapter.max_load - len(self.running) - self.claiming

    @property
    def changed(self) -> bool:
        """It can do something else than it said (another model, other functions), and nothing runs that a new registration would void."""
        return not self.running and not self.claiming and self.offered != self.adapter.capabilities()


class LocalExecutors:
    """All of this process.

    Args:
        replica: takes the commands.
        dispatch: gives work.
        adapters: what to run.
        leases: where their signs of life go.
        make_context: a ``ClaimContext`` for a claim.
        verify: raises ``result_invalid`` for a result that does not satisfy the task's schema.
        lease_seconds: see the settings.
        attempt_seconds: see the settings.
    """

    def __init__(
        self, replica: Replica, dispatch: Dispatch, adapters: Sequence[ExecutorAdapter], leases: Leases, make_context: MakeContext, verify: Verify,
        lease_seconds: float, attempt_seconds: float,
    ) -> None:  # fmt: skip
        self.all = [LocalExecutor(adapter, replica.name) for adapter in adapters]
        self._by_id = {executor.id: executor for executor in self.all}
        self._replica = replica
        self._dispatch = dispatch
        self._leases = leases
        self._make_context = make_context
        self._verify = verify
        self._terms = ClaimTerms(lease_seconds, started=True)
        self._attempt_seconds = attempt_seconds
        self._pending: set[asyncio.Task[None]] = set()

    async def register(self) -> None:
        """Make them known; what an earlier run of theirs held is taken up again by :meth:`adopt`."""
        for executor in self.all:
            executor.state = await self._registered(executor)
            until = self._replica.now() + self._terms.lease_seconds
            await self._leases.renew(executor.id, executor.state.incarnation, until)

    async def adopt(self) -> None:
        """Take the claims of earlier runs over, all at once: one entry each says that the old claim ended and the new one began."""
        claims = [self._take_over(executor, task_id) for executor in self.all for task_id in list(self._replica.projection.held.get(executor.id, ()))]
        await asyncio.gather(*claims)

    def changed(self, before: TaskState | None, after: TaskState, envelope: Envelope) -> None:
        """A listener of the projection: start what was assigned to us, stop what is ours no more."""
        if before is not None and before.is_held and before.executor in self._by_id:
            self._maybe_stop(self._by_id[before.executor], before, after)
        if after.is_held and after.executor in self._by_id and any(type(event) is Assigned for event in envelope.events):
            executor = self._by_id[after.executor]
            if executor.state is not None and after.incarnation == executor.state.incarnation:
                task = asyncio.get_running_loop().create_task(self._run(executor, after))
                executor.running[after.id] = (after.token, task)

    def eager(self, task_type: str, executor_type: ExecutorType | None) -> LocalExecutor | None:
        """An executor with a free slot for a task that is just being made, when nothing else waits; reserve with ``claiming``."""
        for executor in self.all:
            state = executor.state
            if state is None or executor.free <= 0 or state.status is not ExecutorStatus.ONLINE:
                continue
            offer = offer_of(state, 0, None)
            if takes(offer.type_filter, task_type, executor_type):
                waits = len(self._dispatch.queue) and self._dispatch.queue.peek(offer, self._replica.now()) is not None
                return None if waits else executor
        return None

    def assignment(self, executor: LocalExecutor) -> cm.Assign:
        """A claim by it, for a task whose dependencies are met."""
        if executor.state is None:
            raise TypeError
        return self._dispatch.assignment(executor.state, self._terms_of(executor), dependencies_met=True)

    async def run(self) -> None:
        """Claim while there is work and room, for ever."""
        while True:
            await self._dispatch.wanted.wait()
            self._dispatch.wanted.clear()
            for executor in self.all:
                self._claim_all(executor)

    async def renew_forever(self) -> None:
        """Signs of life."""
        while True:
            until = self._replica.now() + self._terms.lease_seconds
            for executor in self.all:
                try:
                    await self._renew(executor, until)
                except ApplianceError as error:
                    _log.warning("lease_not_renewed", executor=executor.id, error=error.message)
            await asyncio.sleep(self._terms.lease_seconds / RENEWALS_PER_LEASE)

    async def _renew(self, executor: LocalExecutor, until: float) -> None:
        if executor.state is None:
            return
        status = executor.state.status  # lost: silent for too long (a stopped process, a cut network); begin anew
        if status is ExecutorStatus.LOST or (status is ExecutorStatus.ONLINE and executor.changed):
            executor.state = await self._registered(executor)
            self._dispatch.wanted.set()
        await self._leases.renew(executor.id, executor.state.incarnation, until)

    def refresh(self, state: ExecutorState) -> None:
        """A listener of the projection: an operator changed one of ours, or another run took its name."""
        mine = self._by_id.get(state.id)
        if mine is not None and mine.state is not None and state.incarnation == mine.state.incarnation:
            mine.state = state
            self._dispatch.wanted.set()

    async def stop(self) -> None:
        """Stop working; the claims stay in the log and are taken up by the next run."""
        tasks = [task for executor in self.all for _, task in executor.running.values()] + list(self._pending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _terms_of(self, executor: LocalExecutor) -> ClaimTerms:
        return self._terms if executor.models is None else replace(self._terms, models=executor.models())

    async def _registered(self, executor: LocalExecutor) -> ExecutorState:
        executor.offered = executor.adapter.capabilities()
        return await self._replica.change_executor(executor.id, lambda known: (self._registration(executor, known),), by=executor.by)

    def _registration(self, executor: LocalExecutor, known: ExecutorState | None) -> ExecutorRegistered:
        return ExecutorRegistered(
            type=executor.adapter.kind, capabilities=executor.adapter.capabilities(), executor_name=executor.id, max_load=executor.adapter.max_load,
            owner=executor.by, incarnation=known.incarnation + 1 if known is not None else 1, replica=self._replica.name,
        )  # fmt: skip

    async def _take_over(self, executor: LocalExecutor, task_id: str) -> None:
        state = self._replica.projection.tasks[task_id]
        if executor.state is None or state.incarnation >= executor.state.incarnation:
            return
        expire = cm.ExpireLease(token=state.token, reason="incarnation", most_losses=1_000_000)
        commands: tuple[cm.Command, ...] = (expire,)
        takes = state.losses == 0 and executor.free > 0 and executor.state.status is ExecutorStatus.ONLINE and state.status != "awaiting_approval"
        if takes:
            executor.claiming += 1
            commands = (expire, self.assignment(executor))
        try:
            await self._replica.execute(task_id, None, *commands, by=executor.by)
        except ApplianceError as error:
            _log.warning("claim_not_taken_over", task=task_id, code=error.code)
        finally:
            executor.claiming -= takes

    def _claim_all(self, executor: LocalExecutor) -> None:
        if executor.state is None:
            return
        while executor.free > 0:
            task_id = self._dispatch.next_for(executor.state, len(executor.running))
            if task_id is None:
                return
            executor.claiming += 1
            task = asyncio.get_running_loop().create_task(self._claim_one(executor, executor.state, task_id))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _claim_one(self, executor: LocalExecutor, state: ExecutorState, task_id: str) -> None:
        try:
            await self._dispatch.assign(task_id, state, self._terms_of(executor), by=executor.by)
        except ApplianceError as error:
            if error.code in {"task_state", "not_found"}:
                self._dispatch.wanted.set()  # another replica was faster: the next one, please
            else:
                _log.warning("claim_failed", executor=executor.id, code=error.code, error=error.message)
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._dispatch.wanted.set)
        finally:
            executor.claiming -= 1

    def _maybe_stop(self, executor: LocalExecutor, before: TaskState, after: TaskState) -> None:
        still_ours = after.is_held and after.executor == executor.id and after.token == before.token
        known = executor.running.get(after.id)
        if still_ours or known is None or known[0] != before.token:
            return
        del executor.running[after.id]
        if len(self._dispatch.queue):
            self._dispatch.wanted.set()
        if after.status != "completed" and known[1] is not asyncio.current_task():
            known[1].cancel()
            stopping = asyncio.get_running_loop().create_task(_quietly(executor.adapter, after.id))
            self._pending.add(stopping)
            stopping.add_done_callback(self._pending.discard)

    async def _run(self, executor: LocalExecutor, state: TaskState) -> None:
        context = self._make_context(state, executor.by)
        try:
            command = await self._attempt(executor, state, context)
            if command is not None:
                await self._deliver(state, command, executor.by)
        except asyncio.CancelledError:
            raise
        except ApplianceError as error:
            if error.code not in {"stale_claim", "task_state", "not_found"}:
                _log.warning("claim_ended", task=state.id, code=error.code, error=error.message)
        except Exception:
            _log.exception("executor_broke", task=state.id, executor=executor.id)
        finally:
            known = executor.running.get(state.id)
            if known is not None and known[0] == state.token:
                del executor.running[state.id]
                self._dispatch.wanted.set()

    async def _attempt(self, executor: LocalExecutor, state: TaskState, context: ClaimContext) -> cm.Command | None:
        """Work on it; the command that reports how it went."""
        view = task_view(state, self._replica.projection, with_token=True)
        try:
            async with context.clock.limit(state.timeout_seconds or self._attempt_seconds):
                done = await executor.adapter.execute(view, context)
            await self._verify(state, done.result)
            return cm.Complete(token=state.token, result=done.result, metrics=_raw(done.metrics), steps=context.outstanding)
        except ExecutionFailedError as failure:
            error = TaskError(code=failure.code, message=str(failure)[:2000], diagnostics=_raw(failure.diagnostics))
            return _failure(state, error, retryable=failure.retryable)
        except ContinueLaterError as later:
            return cm.ContinueLater(token=state.token, reason=str(later)[:2000])
        except TimeoutError:
            await _quietly(executor.adapter, state.id)
            return _failure(state, TaskError(code="timeout", message="the attempt took too long"))
        except ApplianceError as error:
            if error.code in {"stale_claim", "not_found"}:
                raise
            if error.code in _NOT_ITS_FAULT:  # the log was away: the executor lives, so nobody else would end its claim
                return cm.ExpireLease(token=state.token, reason="unavailable", most_losses=1_000_000)
            retryable = error.code not in {"result_invalid", "effect_unknown", "invalid_request", "too_large"}
            return _failure(state, TaskError(code=error.code, message=error.message), retryable=retryable)
        except Exception as error:
            _log.exception("executor_broke", task=state.id, executor=executor.id)
            return _failure(state, TaskError(code="executor_failed", message=f"the executor broke: {type(error).__name__}"))

    async def _deliver(self, state: TaskState, command: cm.Command, by: str) -> None:
        """Report until the log has it or the claim has ended."""
        while True:
            try:
                await self._replica.execute(state.id, None, command, by=by)
                return
            except ApplianceError as error:
                if error.code not in _NOT_ITS_FAULT:
                    raise
                _log.warning("report_delayed", task=state.id, code=error.code)
            await asyncio.sleep(RETRY_SECONDS)


def _failure(state: TaskState, error: TaskError, *, retryable: bool = True) -> cm.Fail:
    return cm.Fail(token=state.token, error=error, retryable=retryable, jitter=random.uniform(-1, 1))  # noqa: S311 - spreads retries, guards nothing


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value)) if value else msgspec.Raw(b"{}")


async def _quietly(adapter: ExecutorAdapter, task_id: str) -> None:
    try:
        await adapter.cancel(task_id)
    except ApplianceError as error:
        _log.warning("cancel_failed", task=task_id, code=error.code)
