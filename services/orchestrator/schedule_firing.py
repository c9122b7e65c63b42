"""Schedules at work: every replica fires what is due, the log lets one of them win. Owns: making the tasks and noting that it was done.

A firing is two entries: first the task, whose id is derived from (space, schedule, first due time) or (space, schedule, sequence of the event), then
``ScheduleFired``. Killed between them, the next one finds the task under the same id and only notes it. The other order would lose the task: nobody could
tell one that was never made from one that retention has dropped.

Invariants:
1. One firing makes one task, whatever the number of replicas, crashes and repeats.
2. What a task stands for is written in the task (``schedule_stamps``), so whoever notes a firing notes what the maker decided.
3. Due times that passed while nobody was there are one firing; ``missed`` counts those without a task of their own.
4. A clock that jumps forward fires once. One that jumps back by up to :data:`SMALL_STEP` fires nothing until it has caught up; further back, due times
   go on from the new time on, and those that have their task already get no second one.
5. An owner who may not make tasks in the space any more makes none: due times pass, and are counted as missed.
6. A schedule does not fire for a task that it stands behind (itself, its parents and their causes), nor at the end of a chain of
   :data:`LONGEST_CHAIN` schedules.
7. Events that have not been fired yet are in :meth:`Firing.pending`, which snapshots keep: an event before the snapshot is not forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import ScheduleFired
from services.orchestrator.domain.registry import ScheduleState, SpaceState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.domain.upcasting import decode_envelope
from services.orchestrator.identifiers import TASK, derived_id
from services.orchestrator.ports import Recorded
from services.orchestrator.replica import Replica
from services.orchestrator.schedule_stamps import LONGEST_CHAIN, Stamp, stamp_of, stamped
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.subjects import TASKS, subject_names
from services.orchestrator.submission import plan
from services.orchestrator.triggers import ClockTrigger, EventTrigger, due_by, stored_trigger

BY: Final = "system:schedules"
SMALL_STEP: Final = 60.0
LONGEST_SLEEP: Final = 30.0
MOST_PENDING: Final = 100_000
_PRUNE_EVERY: Final = 10_000
_MOST_ANCESTORS: Final = 16
_AGAIN_SECONDS: Final = 1.0
_TRANSIENT: Final = frozenset({"unavailable", "overloaded", "disk_full"})
_log = get_logger(__name__)


MaySubmit = Callable[[str, str], Awaitable[bool]]
"""``await may_submit(account, space)``: whether that account may make tasks there now."""


async def anyone(_account: str, _space: str) -> bool:
    """Where nobody is asked."""
    return True


class PendingEvent(msgspec.Struct, frozen=True):
    """An event that a schedule waits for has happened; its task is not made yet."""

    space: str
    schedule: str
    sequence: int
    task: str
    event: str


class Firing:
    """See the module. Make it before the replica follows the log: it must see every event.

    Args:
        replica: takes the commands.
        settings: limits of tasks.
        may_submit: whether (owner, space) may make tasks now.
    """

    def __init__(self, replica: Replica, settings: OrchestratorSettings, may_submit: MaySubmit) -> None:
        self._replica = replica
        self._projection = replica.projection
        self._settings = settings
        self._may_submit = may_submit
        self._changed = asyncio.Event()
        self._pending: dict[PendingEvent, None] = {}
        self._floors: dict[tuple[str, str], float] = {}
        self._watched: dict[tuple[str, str], list[ScheduleState]] = {}
        self._names: tuple[bytes, ...] = ()
        self._next: dict[tuple[str, str], tuple[ScheduleState, float | None, float]] = {}
        for space in self._projection.spaces.values():
            self._space_changed(space)
        self._projection.listen(space=self._space_changed)
        replica.listen_raw(self._take)

    async def run(self) -> None:
        """Fire what is due, for ever."""
        await self._replica.caught_up.wait()
        while True:
            self._changed.clear()
            waits = await self.fire()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(waits, 0.001), LONGEST_SLEEP)):
                    await self._changed.wait()

    async def fire(self) -> float:
        """One round; seconds until the next one is due (at most :data:`LONGEST_SLEEP` if nothing is)."""
        again = await self._fire_events()
        return min(again, await self._fire_clocks())

    def pending(self) -> tuple[PendingEvent, ...]:
        """For a snapshot."""
        return tuple(self._pending)

    def restore(self, pending: msgspec.Raw) -> None:
        """From a snapshot."""
        self._pending |= dict.fromkeys(msgspec.json.decode(pending, type=tuple[PendingEvent, ...]))

    def next_due(self, space: str, schedule: ScheduleState) -> float | None:
        """When a schedule fires next by the clock."""
        trigger = stored_trigger(bytes(schedule.trigger))
        if isinstance(trigger, EventTrigger):
            return None
        after, anchor = self._after(space, schedule, self._replica.now())
        return trigger.next_after(after, anchor)

    def _space_changed(self, space: SpaceState) -> None:
        """A listener: keep what is looked up by event, and wake the loop."""
        for key in [key for key in self._watched if key[0] == space.space]:
            del self._watched[key]
        for schedule in space.schedules.values():
            trigger = stored_trigger(bytes(schedule.trigger))
            if isinstance(trigger, EventTrigger):
                self._watched.setdefault((space.space, trigger.event), []).append(schedule)
        self._names = tuple({b'"name":"%s"' % event.encode() for _, event in self._watched})
        self._changed.set()

    def _take(self, batch: Sequence[Recorded]) -> None:
        """A listener of the tail: note events that schedules wait for. Most entries cost a search for a few words."""
        if not self._names:
            return
        for recorded in batch:
            if any(name in recorded.body for name in self._names):
                self._note(recorded)
        if self._pending:
            self._changed.set()

    def _note(self, recorded: Recorded) -> None:
        kind, *names = subject_names(recorded.subject)
        if kind != TASKS:
            return
        envelope = decode_envelope(recorded.body)
        for name in dict.fromkeys(type(event).__name__ for event in envelope.events):
            for schedule in self._watched.get((names[0], name), ()):
                if schedule.created_at <= envelope.at and recorded.sequence > (schedule.last_due or 0):
                    self._pending[PendingEvent(names[0], schedule.name, recorded.sequence, names[-1], name)] = None
        if len(self._pending) % _PRUNE_EVERY == _PRUNE_EVERY - 1:
            self._prune()

    def _prune(self) -> None:
        """A replay notes what was fired long ago: drop that, and beyond the bound the oldest."""
        for one in [one for one in self._pending if self._awaited(one) is None]:
            del self._pending[one]
        while len(self._pending) > MOST_PENDING:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            _log.warning("schedule_event_dropped", schedule=oldest.schedule, task=oldest.task)

    def _awaited(self, one: PendingEvent) -> ScheduleState | None:
        """The schedule that still has to fire for it."""
        schedule = self._projection.space(one.space).schedules.get(one.schedule)
        return schedule if schedule is not None and one.sequence > (schedule.last_due or 0) else None

    async def _fire_events(self) -> float:
        """Oldest first; a schedule that cannot fire now keeps its later events waiting."""
        blocked: set[tuple[str, str]] = set()
        for one in tuple(self._pending):
            key = (one.space, one.schedule)
            if key in blocked:
                continue
            try:
                await self._fire_event(one)
                self._pending.pop(one, None)
            except ApplianceError as error:
                _log.warning("schedule_delayed", schedule=one.schedule, code=error.code, error=error.message)
                blocked.add(key)
        return _AGAIN_SECONDS if blocked else LONGEST_SLEEP

    async def _fire_event(self, one: PendingEvent) -> None:
        schedule = self._awaited(one)
        cause = await self._replica.state(one.task) if schedule is not None else None
        if schedule is None or cause is None:
            return
        trigger = stored_trigger(bytes(schedule.trigger))
        if not isinstance(trigger, EventTrigger) or trigger.event != one.event or trigger.task_type not in {None, cause.type}:
            return
        chain = await self._chain(cause)
        if schedule.name in chain or len(chain) >= LONGEST_CHAIN:
            _log.info("schedule_loop_ended", schedule=schedule.name, space=one.space, cause=one.task)
            return
        stamp = Stamp(name=schedule.name, cause=one.task, event=one.event, sequence=one.sequence, chain=(*chain, schedule.name))
        task_id = derived_id(TASK, "schedule", one.space, schedule.name, f"event {one.sequence}")
        state = await self._make(task_id, one.space, schedule, stamp)
        fired = ScheduleFired(schedule=schedule.name, due=float(one.sequence), task=state.id if state else "", missed=0 if state else 1)
        await self._replica.change_space(one.space, lambda space: (fired,) if _goes_on(space, fired) else (), by=BY)

    async def _chain(self, cause: TaskState) -> tuple[str, ...]:
        """Schedules behind a task: its own stamp's, or that of the nearest parent that has one."""
        state: TaskState | None = cause
        for _ in range(_MOST_ANCESTORS):
            if state is None:
                return ()
            stamp = stamp_of(state)
            if stamp is not None:
                return stamp.chain or (stamp.name,)
            state = await self._replica.state(state.parent) if state.parent is not None else None
        return ("",) * LONGEST_CHAIN  # so deep a family is not asked any further

    async def _fire_clocks(self) -> float:
        waits = LONGEST_SLEEP
        for space in list(self._projection.spaces.values()):
            for schedule in list(space.schedules.values()):
                try:
                    due = await self._fire_clock(space.space, schedule)
                except ApplianceError as error:
                    _log.warning("schedule_delayed", schedule=schedule.name, code=error.code, error=error.message)
                    waits = min(waits, _AGAIN_SECONDS)
                    continue
                if due is not None:
                    waits = min(waits, due - self._replica.now())
        return waits

    async def _fire_clock(self, space: str, schedule: ScheduleState) -> float | None:
        """Fire it if it is due; when it is due next."""
        key, now = (space, schedule.name), self._replica.now()
        known = self._next.get(key)
        if known is not None and known[0] is schedule and known[2] - SMALL_STEP <= now and (known[1] is None or now < known[1]):
            return known[1]
        trigger = stored_trigger(bytes(schedule.trigger))
        due = None
        if not isinstance(trigger, EventTrigger):
            if await self._fire_due(space, schedule, trigger, now):
                return now  # what follows is due by the changed schedule: look again at once
            after, anchor = self._after(space, schedule, now)
            due = trigger.next_after(after, anchor)
        self._next[key] = schedule, due, now
        return due

    async def _fire_due(self, space: str, schedule: ScheduleState, trigger: ClockTrigger, now: float) -> bool:
        after, anchor = self._after(space, schedule, now)
        due = due_by(trigger, after, now, anchor)
        if due is None:
            return False
        stamp = Stamp(name=schedule.name, due=due.newest, missed=due.missed)
        task_id = derived_id(TASK, "schedule", space, schedule.name, f"{due.first:.3f}")
        state = await self._make(task_id, space, schedule, stamp)
        made = stamp_of(state) if state is not None else None
        covered = made.due if made is not None and made.due is not None and made.due <= now else due.first
        fired = ScheduleFired(
            schedule=schedule.name, due=covered if state else due.newest, task=state.id if state else "",
            missed=(made.missed if made else 0) if state else due.missed + 1,
        )  # fmt: skip

        def note(known: SpaceState) -> tuple[ScheduleFired, ...]:
            current = known.schedules.get(schedule.name)
            is_same = current is not None and (current.last_due, current.created_at) == (schedule.last_due, schedule.created_at)
            return (fired,) if is_same else ()

        await self._replica.change_space(space, note, by=BY)
        self._floors.pop((space, schedule.name), None)
        return True

    def _after(self, space: str, schedule: ScheduleState, now: float) -> tuple[float, float]:
        """Behind which moment due times count, and from which periods are counted."""
        last, key = schedule.last_due if schedule.last_due is not None else schedule.created_at, (space, schedule.name)
        if last <= now + SMALL_STEP:
            self._floors.pop(key, None)
            return last, schedule.created_at
        floor = self._floors.setdefault(key, now)
        if floor > now + SMALL_STEP:  # back once more
            floor = self._floors[key] = now
        return floor, min(schedule.created_at, floor)

    async def _make(self, task_id: str, space: str, schedule: ScheduleState, stamp: Stamp) -> TaskState | None:
        """The task of a firing, new or found; None when its owner may not make it or its spec is not allowed any more.

        Raises:
            ApplianceError: ``unavailable``, ``overloaded``, ``disk_full``: try again.
        """
        if not await self._may_submit(schedule.owner, space):
            _log.warning("schedule_owner_may_not", schedule=schedule.name, space=space, owner=schedule.owner)
            return None
        projection, settings = self._projection, self._settings
        if task_id not in projection.tasks and (
            projection.open_count >= settings.max_open_tasks or projection.open_by_space.get(space, 0) >= settings.max_open_tasks_per_space
        ):
            raise ApplianceError("overloaded", "there are too many open tasks", hint="wait until some are done")
        try:
            spec = msgspec.json.decode(schedule.spec, type=TaskSpec)
            (planned,) = plan((spec,), schedule.owner, settings.max_input_bytes, self._replica.now())
            created = msgspec.structs.replace(planned.created, metadata=stamped(spec.metadata, stamp))
            return await self._replica.execute(task_id, space, cm.Create(created=created), by=BY)
        except ApplianceError as error:
            if error.code in _TRANSIENT:
                raise
            known = await self._replica.state(task_id) if error.code == "conflict" else None  # made before the spec was changed
            if known is None:
                _log.warning("schedule_cannot_fire", schedule=schedule.name, space=space, code=error.code, error=error.message)
            return known


def _goes_on(space: SpaceState, fired: ScheduleFired) -> bool:
    known = space.schedules.get(fired.schedule)
    return known is not None and (known.last_due or 0) < fired.due
