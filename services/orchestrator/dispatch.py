"""Free tasks to executors. Owns: the ready queue of this replica, kept in step with the projection, and the claims made from it.

Every replica queues every free task and claims for the executors that ask *it*; two that choose the same task are parted by the log, and the loser chooses
again. Does not own: order and scores (``scheduling``), running (``local_executors``), leases and other clocks (``guardian``).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.contracts.orchestrator.v1.values import ExecutorStatus
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import Envelope
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.offers import offer_of
from services.orchestrator.replica import Replica
from services.orchestrator.scheduling.execution_history import ExecutionHistory
from services.orchestrator.scheduling.ready_queue import ReadyQueue
from services.orchestrator.scheduling.ready_task import ExecutorOffer, ReadyTask

MOST_LOST_CLAIMS: Final = 64
REVIEWED_AT_ONCE: Final = 512
"""Dependents of one task that become free in one go; 100,000 would hold the loop for seconds, and the leases with it."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """How a claim is made: until when it holds at first, whether work begins at once, and with which models."""

    lease_seconds: float
    started: bool
    models: tuple[str, ...] = ()


class Dispatch:
    """The ready queue of a replica and the claims from it.

    Args:
        replica: takes the ``Assign`` commands.
        queue: ordered by the policy of the settings.
        history: what was seen of executors; fed from here.
        preferred: what the classifier says of a task (None: nothing).
    """

    def __init__(self, replica: Replica, queue: ReadyQueue, history: ExecutionHistory, preferred: Callable[[TaskState], ReadyTask]) -> None:
        self.queue = queue
        self.wanted = asyncio.Event()
        self.to_fail: dict[str, str] = {}
        self.to_look_up: dict[str, None] = {}
        self.to_review: deque[str] = deque()
        self._replica = replica
        self._projection = replica.projection
        self._history = history
        self._ready_task = preferred
        self._later: list[tuple[float, str]] = []
        self._waiters: list[asyncio.Future[None]] = []

    def start(self) -> None:
        """Queue what is free now; from here on :meth:`changed` keeps in step."""
        for state in list(self._projection.tasks.values()):
            if not state.is_terminal:
                self.review(state)

    def changed(self, before: TaskState | None, after: TaskState, _envelope: Envelope) -> None:
        """A listener of the projection."""
        if before is not None and before.is_held and not after.is_held and before.executor is not None:
            self._learn(before, after)
        if before is not None or after.is_claimable:
            self.review(after)
        if after.is_terminal:
            self.to_review.extend(self._projection.dependents.get(after.id, ()))
            self.review_waiting()

    def review_waiting(self) -> None:
        """Review a bounded number of those that waited for tasks that have ended; the guardian calls this for the rest of very many."""
        for _ in range(min(len(self.to_review), REVIEWED_AT_ONCE)):
            waiting = self._projection.tasks.get(self.to_review.popleft())
            if waiting is not None and not waiting.is_terminal:
                self.review(waiting)

    def wake_later(self, now: float) -> None:
        """Queue tasks whose waiting time (backoff) is over; the guardian calls this."""
        while self._later and self._later[0][0] <= now:
            _, task_id = heapq.heappop(self._later)
            state = self._projection.tasks.get(task_id)
            if state is not None:
                self.review(state)

    async def claim(self, executor: ExecutorState, offer: ExecutorOffer, terms: ClaimTerms, *, by: str) -> TaskState | None:
        """The best task for the executor, assigned to it; None when there is none. Tasks that others took meanwhile are passed over."""
        for _ in range(MOST_LOST_CLAIMS):
            if executor.status is not ExecutorStatus.ONLINE:
                return None
            task_id = self.queue.pop(offer, self._replica.now())
            if task_id is None:
                return None
            try:
                return await self.assign(task_id, executor, terms, by=by)
            except ApplianceError as error:
                if error.code not in {"task_state", "not_found"}:
                    raise
        return None

    def next_for(self, executor: ExecutorState, load: int) -> str | None:
        """Take the task that a local executor shall claim out of the queue; None when there is none."""
        return self.queue.pop(offer_of(executor, load, None), self._replica.now())

    async def assign(self, task_id: str, executor: ExecutorState, terms: ClaimTerms, *, by: str) -> TaskState:
        """Claim a certain task; raises ``task_state`` when it is not free. What could not be claimed is put where it belongs."""
        state = self._projection.tasks.get(task_id)
        command = self.assignment(executor, terms, dependencies_met=state is not None and task_id not in self._projection.unmet)
        try:
            return await self._replica.execute(task_id, None, command, by=by)
        except ApplianceError:
            self._put_back(task_id)
            raise

    def assignment(self, executor: ExecutorState, terms: ClaimTerms, *, dependencies_met: bool) -> cm.Assign:
        """The command for a claim."""
        return cm.Assign(
            executor=executor.id, incarnation=executor.incarnation, lease_until=self._replica.now() + terms.lease_seconds,
            dependencies_met=dependencies_met, started=terms.started, models=terms.models,
        )  # fmt: skip

    async def until_wanted(self, seconds: float) -> None:
        """Wait until a task becomes free, ``seconds`` at most."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return
        finally:
            if future in self._waiters:
                self._waiters.remove(future)

    def review(self, state: TaskState) -> None:
        """Put the task where it belongs now."""
        now = self._replica.now()
        if not self._projection.is_free(state):
            self.queue.remove(state.id, now)
            if state.is_claimable:
                self._look_at_dependencies(state)
            return
        if state.not_before is not None and state.waits(now):
            self.queue.remove(state.id, now)
            heapq.heappush(self._later, (state.not_before, state.id))
            return
        self._enqueue(state, now)

    def _enqueue(self, state: TaskState, now: float) -> None:
        known = self.queue.get(state.id)
        if known is None:
            self.queue.push(self._ready_task(state), now)
        elif known.priority != state.priority:
            self.queue.set_priority(state.id, state.priority, now)
        self.wanted.set()
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    def _look_at_dependencies(self, state: TaskState) -> None:
        failed = self._projection.failed_dependency(state)
        if failed is not None:
            self.to_fail[state.id] = failed
        elif any(dependency not in self._projection.tasks for dependency in self._projection.unmet.get(state.id, ())):
            self.to_look_up[state.id] = None

    def _put_back(self, task_id: str) -> None:
        state = self._projection.tasks.get(task_id)
        if state is not None:
            self.review(state)

    def _learn(self, before: TaskState, after: TaskState) -> None:
        if before.executor is None or before.assigned_at is None or not (after.is_terminal or after.attempts > before.attempts):
            return
        succeeded = after.status == "completed"
        seconds = max(0.0, after.updated_at - before.assigned_at)
        self._history.record(before.executor, after.type, succeeded=succeeded, seconds=seconds)
