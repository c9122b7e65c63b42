"""The clock's part: leases that end, deadlines, backoffs, unanswered questions, failed dependencies.

Every replica has one; the log parts those that act on the same thing, so being late, early or double costs nothing but a lost race.

Silence is judged by ``signs_of_life``: by monotonic clocks, and only by who can hear.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from appliance.contracts.orchestrator.v1.values import ExecutorStatus, TaskStatus
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.dispatch import Dispatch
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import ApprovalRequested, Assigned, Envelope, ExecutorStatusChanged, ProgressReported, Reopened, Resumed
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.ports import Leases
from services.orchestrator.replica import Replica
from services.orchestrator.signs_of_life import SignsOfLife

TICK_SECONDS: Final = 0.1
AGAIN_SECONDS: Final = 1.0
AT_ONCE: Final = 1024
BY: Final = "system:clock"
_log = get_logger(__name__)


class Guardian:
    """See the module.

    Args:
        replica: takes the commands.
        dispatch: is told when waiting times are over.
        leases: signs of life of executors.
        most_losses: see the settings.
        lease_seconds: of the box's own executors; how long a sign of life lasts at least.
        longest_lease_seconds: of executors outside; how long one lasts at most.
        attempt_seconds: longest attempt unless the task says otherwise (external executors; the box's own are timed where they run, which also stops
            the clock while a person is asked: a task with questions is left to its lease here).
    """

    def __init__(
        self, replica: Replica, dispatch: Dispatch, leases: Leases, *, most_losses: int, lease_seconds: float, attempt_seconds: float,
        longest_lease_seconds: float, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._replica = replica
        self._projection = replica.projection
        self._dispatch = dispatch
        self.signs = SignsOfLife(leases, replica.name, lease_seconds, longest_lease_seconds, replica.now, monotonic)
        self._most_losses = most_losses
        self._lease_seconds = lease_seconds
        self._attempt_seconds = attempt_seconds
        self._due: list[tuple[float, str, str]] = []
        self._void: dict[str, None] = {}
        self._working: set[asyncio.Future[object]] = set()

    def start(self) -> None:
        """Note what the projection has; from here on :meth:`changed` does."""
        for state in self._projection.tasks.values():
            self._note(state)
            if state.is_held and state.assigned_at is not None:
                self._at(state.assigned_at + self._limit(state), "attempt", state.id)
                if self._is_void(state):  # whoever saw the new run register was killed before it ended the claim
                    self._void[state.id] = None

    def changed(self, before: TaskState | None, after: TaskState, envelope: Envelope) -> None:
        """A listener of the projection."""
        if before is None:
            self._note(after)
        if before is not None and before.is_held and not after.is_held:
            self.signs.let_go(after.id)
        for event in envelope.events:
            if isinstance(event, ApprovalRequested):
                self._at(event.expires_at, "approval", after.id)
            elif isinstance(event, (Resumed, Reopened)):  # its deadline and its questions count again
                self._note(after)
            elif isinstance(event, ProgressReported) and after.is_held:
                self.signs.renewed(after, event.lease_until - envelope.at, claimed=False)
            elif isinstance(event, Assigned) and after.is_held:
                self.signs.renewed(after, event.lease_until - envelope.at, claimed=True)
                if self._is_outside(event.executor):
                    self._at(self._replica.now() + self._limit(after), "attempt", after.id)
                if self._is_void(after):
                    self._void[after.id] = None

    def registered(self, executor: ExecutorState) -> None:
        """A listener: claims of earlier incarnations are void."""
        for task_id in self._projection.held.get(executor.id, ()):
            if self._is_void(self._projection.tasks[task_id]):
                self._void[task_id] = None

    async def run(self) -> None:
        """Act on what is due, for ever."""
        while True:
            try:
                await self.tick()
            except ApplianceError as error:
                _log.warning("guardian_delayed", code=error.code, error=error.message)
            await asyncio.sleep(TICK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - parts replicas, guards nothing

    async def tick(self) -> None:
        """One round."""
        now = self._replica.now()
        self._dispatch.wake_later(now)
        self._dispatch.review_waiting()
        await self._fail_dependents()
        await self._look_up_dependencies()
        await self._act_on_due(now)
        await self._expire_leases()

    def _note(self, state: TaskState) -> None:
        if not state.is_terminal:
            self._at(state.deadline, "deadline", state.id)
            for approval in state.pending_approvals:
                self._at(approval.expires_at, "approval", state.id)

    def _is_outside(self, executor_id: str) -> bool:
        """Not run by a replica: those time their attempts themselves, and an entry here for each of their claims would outlive it by far."""
        executor = self._projection.executors.get(executor_id)
        return executor is None or not executor.replica

    def _is_void(self, state: TaskState) -> bool:
        """Held by a run of an executor that another one has followed, or that has left."""
        executor = self._projection.executors.get(state.executor) if state.is_held and state.executor is not None else None
        return executor is not None and (executor.gone or state.incarnation < executor.incarnation)

    def _limit(self, state: TaskState) -> float:
        return (state.timeout_seconds or self._attempt_seconds) + self._lease_seconds

    def _at(self, due: float | None, kind: str, task_id: str) -> None:
        if due is not None:
            heapq.heappush(self._due, (due, kind, task_id))

    async def _fail_dependents(self) -> None:
        """Some in each round, so that leases and deadlines are looked at in between; those that these fail come in the next."""
        batch = list(islice(self._dispatch.to_fail.items(), AT_ONCE))
        for task_id, _ in batch:
            self._dispatch.to_fail.pop(task_id, None)
        await self._together([(task_id, cm.FailDependent(dependency=dependency)) for task_id, dependency in batch])

    async def _look_up_dependencies(self) -> None:
        """Dependencies that have left memory: the log knows how they ended."""
        for task_id in list(self._dispatch.to_look_up)[:AT_ONCE]:
            for dependency in list(self._projection.unmet.get(task_id, ())):
                if dependency in self._projection.tasks:
                    continue
                state = await self._replica.load(dependency)
                if state is not None and state.status is TaskStatus.COMPLETED:
                    self._projection.meet(task_id, dependency)
                elif state is None or state.status is TaskStatus.FAILED:
                    self._dispatch.to_fail[task_id] = dependency
            self._dispatch.to_look_up.pop(task_id, None)  # not before: a log that is away must not make it wait for ever
            waiting = self._projection.tasks.get(task_id)
            if waiting is not None:
                self._dispatch.review(waiting)

    async def _act_on_due(self, now: float) -> None:
        commands: list[tuple[str, cm.Command]] = []
        while self._due and self._due[0][0] <= now and len(commands) < AT_ONCE:
            _, kind, task_id = heapq.heappop(self._due)
            state = self._projection.tasks.get(task_id)
            if state is None or state.is_terminal:
                continue
            if kind == "deadline":
                commands.append((task_id, cm.PassDeadline()))
            elif kind == "approval":
                commands += [(task_id, cm.ExpireApproval(approval=one.id)) for one in state.pending_approvals]
            elif state.is_held and state.assigned_at is not None and not state.approvals:
                left = self._limit(state) - self.signs.held_for(state)
                if left <= 0:
                    commands.append((task_id, self._expiry(state, "timeout")))
                elif left < 1.0:  # the clocks differ a little; a claim that is younger has an entry of its own
                    self._at(now + left, "attempt", task_id)
        await self._together(commands)

    async def _expire_leases(self) -> None:
        commands: list[tuple[str, cm.Command]] = []
        for task_id in list(self._void)[:AT_ONCE]:
            del self._void[task_id]
            state = self._projection.tasks.get(task_id)
            if state is not None and self._is_void(state):  # it may have been taken over meanwhile
                commands.append((task_id, self._expiry(state, "incarnation")))
        if self.signs.may_judge():
            for executor_id in list(self._projection.held):
                if len(commands) >= AT_ONCE:
                    break
                commands += self._silent_claims(executor_id)[:AT_ONCE]
            for executor in self._projection.executors.values():  # replicas' own renew by themselves, so an idle one that is silent is gone too
                if executor.replica and executor.id not in self._projection.held and self.signs.lives(executor) is False:
                    self._lose(executor)
        await self._together(commands)

    def _silent_claims(self, executor_id: str) -> list[tuple[str, cm.Command]]:
        executor = self._projection.executors.get(executor_id)
        if executor is not None and not executor.gone:
            lives = self.signs.lives(executor)
            if lives:
                return []
            if lives is False:
                self._lose(executor)
        held = [self._projection.tasks[task_id] for task_id in self._projection.held.get(executor_id, ())]
        return [(state.id, self._expiry(state, "silent")) for state in held if not self.signs.claim_holds(state)]

    def _lose(self, executor: ExecutorState) -> None:
        if executor.status is ExecutorStatus.ONLINE:
            lost = ExecutorStatusChanged(status=ExecutorStatus.LOST, by=BY)

            def decide(known: ExecutorState | None) -> tuple[ExecutorStatusChanged, ...]:
                return (lost,) if known is not None and known.status is ExecutorStatus.ONLINE and known.incarnation == executor.incarnation else ()

            self._soon(self._replica.change_executor(executor.id, decide, by=BY))

    def _expiry(self, state: TaskState, reason: str) -> cm.ExpireLease:
        return cm.ExpireLease(token=state.token, reason=reason, most_losses=self._most_losses, jitter=random.uniform(-1, 1))  # noqa: S311 - spreads retries

    async def _together(self, commands: list[tuple[str, cm.Command]]) -> None:
        if commands:
            await asyncio.gather(*(self._quietly(task_id, command) for task_id, command in commands))

    async def _quietly(self, task_id: str, command: cm.Command) -> None:
        try:
            await self._replica.execute(task_id, None, command, by=BY)
        except ApplianceError as error:
            if error.code in {"unavailable", "overloaded", "disk_full"}:
                self._again(task_id, command)
            elif error.code not in {"task_state", "stale_claim", "not_found"}:
                _log.warning("guardian_command_failed", task=task_id, code=error.code)

    def _again(self, task_id: str, command: cm.Command) -> None:
        """It could not be written: in a moment."""
        if isinstance(command, cm.FailDependent):
            self._dispatch.to_fail[task_id] = command.dependency
        elif isinstance(command, cm.ExpireLease):
            if command.reason == "incarnation":
                self._void[task_id] = None
            elif command.reason == "timeout":
                self._at(self._replica.now() + AGAIN_SECONDS, "attempt", task_id)
        else:
            self._at(self._replica.now() + AGAIN_SECONDS, "deadline" if isinstance(command, cm.PassDeadline) else "approval", task_id)

    def _soon(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._working.discard(task)
        if not task.cancelled() and isinstance(task.exception(), ApplianceError):
            _log.warning("guardian_delayed", error=str(task.exception()))
