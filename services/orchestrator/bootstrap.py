"""Builds the orchestrator: the only file here that names what is built of what.

``open_orchestrator`` builds a replica on any stores (``jetstream_stores`` opens real ones, tests make some in memory) and runs its background work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from appliance.contracts.orchestrator.v1.api import Approvals, ClaimState, Executors, Feed, Schedules, TaskControl, Tasks, Work
from appliance.contracts.orchestrator.v1.values import ExecutorType
from appliance.kit.logging import get_logger
from appliance.kit.steady_clock import SteadyClock
from appliance.schema.schema_check import SchemaChecker
from services.orchestrator.claim_context import ClaimContext
from services.orchestrator.dispatch import Dispatch
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.feed import LiveFeed
from services.orchestrator.guardian import Guardian
from services.orchestrator.jetstream_stores import Stores
from services.orchestrator.local_executors import LocalExecutors
from services.orchestrator.metrics import Measures
from services.orchestrator.offers import ready_task
from services.orchestrator.performance import Performance
from services.orchestrator.ports import ExecutorAdapter
from services.orchestrator.projection import Projection
from services.orchestrator.questions import Questions
from services.orchestrator.replica import Replica
from services.orchestrator.retention import Retention
from services.orchestrator.rights import Rights
from services.orchestrator.schedule_firing import Firing, MaySubmit, anyone
from services.orchestrator.schedules import ScheduleDesk
from services.orchestrator.scheduling.classifier import TaskClassifier
from services.orchestrator.scheduling.execution_history import ExecutionHistory
from services.orchestrator.scheduling.policies import PolicyName, PolicySettings, make_policy
from services.orchestrator.scheduling.ready_queue import ReadyQueue
from services.orchestrator.scheduling.ready_task import ReadyTask
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.snapshots import Snapshots
from services.orchestrator.task_checkpoints import TaskCheckpoints
from services.orchestrator.use_cases.approvals import ApprovalDesk
from services.orchestrator.use_cases.clear_space import SpaceClearing
from services.orchestrator.use_cases.executors import ExecutorDesk
from services.orchestrator.use_cases.submit_tasks import SubmitTasks
from services.orchestrator.use_cases.tasks import TaskDesk
from services.orchestrator.use_cases.work import WorkDesk
from services.orchestrator.verification import Verification
from services.orchestrator.waiting import Waiting

PENDING: Final = "pending-events"
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A running replica: what its edges call, and the parts that tests and benches look at. ``clear_space``: the space goes; see ``SpaceClearing``."""

    tasks: Tasks
    control: TaskControl
    work: Work
    claims: ClaimState
    approvals: Approvals
    executors: Executors
    schedules: Schedules
    feed: Feed
    clear_space: Callable[[str], Awaitable[int]]
    snapshots: Snapshots
    replica: Replica
    dispatch: Dispatch
    guardian: Guardian
    local: LocalExecutors
    background: dict[str, asyncio.Task[None]]


@asynccontextmanager
async def open_orchestrator(
    stores: Stores,
    settings: OrchestratorSettings,
    adapters: Sequence[ExecutorAdapter] = (),
    *,
    starting: Awaitable[object] | None = None,
    may_submit: MaySubmit = anyone,
    now: Callable[[], float] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Orchestrator]:
    """A replica on ``stores``: caught up with the log when this enters, its claims of an earlier run taken over.

    Args:
        stores: see :class:`Stores`.
        settings: limits and names.
        adapters: executors that this process runs; started already, or when ``starting`` is done.
        starting: waited for once the log is read; what it raises is raised.
        may_submit: whether (owner, space) may still make tasks, asked when a schedule fires.
        now: Unix seconds; None = the machine's clock, without its jumps.
        monotonic: seconds that never jump.
    """
    projection = Projection(settings.keep_terminal)
    replica = Replica(stores.log, projection, settings.replica, now or SteadyClock(time.time, monotonic))
    firing = Firing(replica, settings, may_submit)  # before the replica follows the log: it must see every event
    snapshots = Snapshots(replica, stores.log, stores.objects, settings, {PENDING: firing.pending}, monotonic)
    annexes = await snapshots.restore()
    if PENDING in annexes:
        firing.restore(annexes[PENDING])
    background: dict[str, asyncio.Task[None]] = {"tail": asyncio.create_task(replica.follow(), name="tail")}
    try:
        await _caught_up(replica, background["tail"])
        if starting is not None:
            await starting
        orchestrator, loops = _build(stores, settings, adapters, replica, snapshots, firing, background, monotonic)
        await orchestrator.local.register()
        orchestrator.dispatch.start()
        orchestrator.guardian.start()
        background |= {name: asyncio.create_task(loops.pop(name)(), name=name) for name in ("leases", "renewals")}
        await orchestrator.local.adopt()  # before the guardian looks: a claim is taken over in one entry, not ended in one and made in another
        background |= {name: asyncio.create_task(loop(), name=name) for name, loop in loops.items()}
        orchestrator.dispatch.wanted.set()
        yield orchestrator
        await orchestrator.local.stop()
    finally:
        for task in background.values():
            task.cancel()
        await asyncio.gather(*background.values(), return_exceptions=True)


def _build(
    stores: Stores, settings: OrchestratorSettings, adapters: Sequence[ExecutorAdapter], replica: Replica, snapshots: Snapshots,
    firing: Firing, background: dict[str, asyncio.Task[None]], monotonic: Callable[[], float],
) -> tuple[Orchestrator, dict[str, Callable[[], Coroutine[None, None, None]]]]:  # fmt: skip
    """The parts, listening, and the background work to start."""
    projection, history = replica.projection, ExecutionHistory()
    rights, waiting, performance = Rights(projection), Waiting(), Performance()
    questions = Questions(replica, waiting, settings.approval_seconds)
    checkpoints = TaskCheckpoints(replica, stores.objects, settings.max_checkpoint_bytes, settings.checkpoints_kept)
    verification = Verification(projection, SchemaChecker())
    queue = ReadyQueue(make_policy(PolicySettings(name=PolicyName(settings.policy))), history=history)
    dispatch = Dispatch(replica, queue, history, _describer(projection, history, replica.now))
    guardian = Guardian(
        replica, dispatch, stores.leases, most_losses=settings.most_losses, lease_seconds=settings.lease_seconds,
        longest_lease_seconds=settings.external_lease_seconds, attempt_seconds=settings.attempt_seconds, monotonic=monotonic,
    )  # fmt: skip
    local = LocalExecutors(
        replica, dispatch, adapters, stores.leases,
        lambda state, by: ClaimContext(replica, questions, checkpoints, state, settings.lease_seconds, by),
        verification.result, settings.lease_seconds, settings.attempt_seconds,
    )  # fmt: skip
    submitting = SubmitTasks(replica, rights, local, settings, verification.spec)
    desk = TaskDesk(replica, rights, submitting, checkpoints, waiting)
    work = WorkDesk(replica, rights, dispatch, guardian, submitting, checkpoints, verification.result, settings)
    feed = LiveFeed(replica, stores.log, rights)
    schedules = ScheduleDesk(replica, firing, settings, verification.spec)
    retention = Retention(replica, stores.log, snapshots, checkpoints, settings)
    measures = Measures(replica, queue)
    questions.start()
    for listener in (dispatch.changed, guardian.changed, waiting.changed, questions.changed, performance.changed, local.changed, measures.changed):
        projection.listen(task=listener)
    projection.listen(executor=guardian.registered)
    projection.listen(executor=local.refresh)
    replica.listen_raw(feed.take)
    loops = {
        "leases": guardian.signs.listen_forever, "guardian": guardian.run, "claims": local.run, "renewals": local.renew_forever,
        "schedules": firing.run, "snapshots": snapshots.run, "retention": retention.run,
    }  # fmt: skip
    orchestrator = Orchestrator(
        tasks=desk, control=desk, work=work, claims=work, approvals=ApprovalDesk(replica, rights, questions),
        executors=ExecutorDesk(replica, stores.leases, guardian, performance, settings.external_lease_seconds), schedules=schedules, feed=feed,
        clear_space=SpaceClearing(replica, stores.log, settings.keep_terminal).clear, snapshots=snapshots,
        replica=replica, dispatch=dispatch, guardian=guardian, local=local, background=background,
    )  # fmt: skip
    return orchestrator, loops


async def _caught_up(replica: Replica, tail: asyncio.Task[None]) -> None:
    """Wait for the end of the log; when the tail ends first, say why."""
    waiting = asyncio.create_task(replica.caught_up.wait())
    done, _ = await asyncio.wait({waiting, tail}, return_when=asyncio.FIRST_COMPLETED)
    if tail in done:
        waiting.cancel()
        tail.result()


def _describer(projection: Projection, history: ExecutionHistory, now: Callable[[], float]) -> Callable[[TaskState], ReadyTask]:
    """A task in the scheduler's terms; the classifier's wish when the submitter had none."""
    classifier = TaskClassifier(is_registered=lambda name: _is_function(projection, name))

    def describe(state: TaskState) -> ReadyTask:
        described = ready_task(state, projection, history, now())
        if state.executor_type is not None:
            return described
        wish = classifier.classify(state.type, bytes(state.input_data)).executor_type
        return replace(described, preferred_type=wish)

    return describe


def _is_function(projection: Projection, name: str) -> bool:
    return any(
        one.type is ExecutorType.ALGORITHMIC and not one.gone and name in one.capabilities.supported_task_types
        for one in projection.executors.values()
    )
