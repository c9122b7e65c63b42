"""One replica: takes commands, decides, appends, applies. Any number of them work on one log; none leads.

Owns: the loop "decide on what is known → append if nobody was faster → apply", catching up after a lost race, and following the tail. Does not own: the
rules (``domain``), durability (``EventLog``), what happens because of it (listeners of the projection).

Invariants:
1. Nothing is applied before the log has acknowledged it; nothing is answered before it is applied.
2. Decisions of one subject are made one after the other within a replica, by compare-and-set between replicas.
3. A command that lost a race is decided again on the new state: it may turn out to be done, void, or forbidden.
4. Nobody is refused, or told that there is nothing to do, on what is out of date: before such an answer the subject is read again. What is written needs
   no such care (2), nor do the commands of the clock and of the dispatch, for which a wrong refusal only means later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import correlation_id, get_logger
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.decide import decide
from services.orchestrator.domain.events import SCHEMA_VERSION, Envelope, ExecutorHappening, Happening, SpaceHappening
from services.orchestrator.domain.registry import ExecutorState, SpaceState
from services.orchestrator.domain.task_state import TaskState, apply_envelope
from services.orchestrator.domain.upcasting import decode_envelope, encode_envelope
from services.orchestrator.identifiers import new_id
from services.orchestrator.ports import Entry, EventLog, LostRaceError, Recorded
from services.orchestrator.projection import Projection
from services.orchestrator.subjects import TASKS, executor_subject, space_subject, subject_names, subject_token, task_subject

LOOK_AGAIN_SECONDS: Final = 1.0
MOST_TRIES: Final = 32
SYNC_SECONDS: Final = 5.0
_RETRY_TAIL_SECONDS: Final = 0.5
_NOT_CHECKED: Final = (
    cm.Create, cm.Assign, cm.ExpireLease, cm.FailDependent, cm.PassDeadline, cm.ExpireApproval, cm.Compact, cm.Drop,
)  # fmt: skip
_log = get_logger(__name__)


class Decision:
    """What one command sequence comes to on one task: the state it was decided on, the events, and where they go."""

    __slots__ = ("envelope", "state", "subject", "task_id")

    def __init__(self, task_id: str, subject: str, state: TaskState | None, envelope: Envelope | None) -> None:
        self.task_id = task_id
        self.subject = subject
        self.state = state
        self.envelope = envelope


class Replica:
    """Commands in, states out.

    Args:
        log: the event log.
        projection: what is known; filled by :meth:`follow`.
        name: of this replica, for ids and logs.
        now: Unix seconds; tests inject a clock.
    """

    def __init__(self, log: EventLog, projection: Projection, name: str, now: Callable[[], float] = time.time) -> None:
        self.projection = projection
        self.name = name
        self.now = now
        self.caught_up = asyncio.Event()
        self._event_log = log
        self._moved = asyncio.Event()
        self._gates: dict[str, asyncio.Future[None]] = {}
        self._raw_listeners: list[Callable[[Sequence[Recorded]], None]] = []

    async def execute(self, task_id: str, space: str | None, *commands: cm.Command, by: str) -> TaskState:
        """Decide ``commands`` one after the other on the task, append their events as one entry; the state that follows.

        Raises:
            ApplianceError: what the rules say; ``not_found``; ``unavailable`` when the log is away (a repeated command tells what became of it).
        """
        sure = isinstance(commands[0], _NOT_CHECKED)
        for _ in range(MOST_TRIES):
            async with _Gate(self._gates, task_id):
                before = await self._before(task_id, commands[0])
                sure = sure or task_id not in self.projection.tasks
                try:
                    decision = self._decide(task_id, space, before, commands, by)
                except ApplianceError:
                    if sure or before is None:
                        raise
                    sure = await self._refreshed(before)
                    continue
                if decision.envelope is None and not sure and before is not None:
                    sure = await self._refreshed(before)
                    continue
                if decision.envelope is None:
                    return _known(decision.state)
                try:
                    return await self._append(decision)
                except LostRaceError:
                    await self.catch_up(decision.subject)
                    sure = True
        raise _too_many_races(task_id)

    async def execute_all(self, pairs: Sequence[tuple[str, str, Sequence[cm.Command]]], *, by: str) -> Sequence[TaskState]:
        """``(task id, space, commands)`` on several *new* tasks, all or none in one append (at most 1,000)."""
        for _ in range(MOST_TRIES):
            decisions = [self._decide(task_id, space, await self._before(task_id, commands[0]), commands, by) for task_id, space, commands in pairs]
            entries = [_entry(decision) for decision in decisions if decision.envelope is not None]
            try:
                sequences = iter(await self._event_log.append(entries) if entries else ())
            except LostRaceError as lost:
                for subject in lost.subjects:
                    await self.catch_up(subject)
                continue
            return [self._applied(decision, next(sequences)) if decision.envelope else _known(decision.state) for decision in decisions]
        raise _too_many_races(pairs[0][0])

    async def change_executor(
        self, executor_id: str, decide_: Callable[[ExecutorState | None], Sequence[ExecutorHappening]], *, by: str
    ) -> ExecutorState:
        """The same loop for an executor's subject."""
        subject = executor_subject(executor_id)
        for _ in range(MOST_TRIES):
            async with _Gate(self._gates, subject):
                state = self.projection.executors.get(executor_id)
                events = decide_(state)
                if not events and state is not None:
                    return state
                envelope = self._envelope(events, by)
                try:
                    sequence = await self._append_one(subject, state.seq if state else 0, envelope)
                except LostRaceError:
                    await self.catch_up(subject)
                    continue
                return self.projection.apply_executor(executor_id, envelope, sequence)
        raise _too_many_races(executor_id)

    async def change_space(self, space: str, decide_: Callable[[SpaceState], Sequence[SpaceHappening]], *, by: str) -> SpaceState:
        """The same loop for a space's subject."""
        subject = space_subject(space)
        for _ in range(MOST_TRIES):
            async with _Gate(self._gates, subject):
                state = self.projection.space(space)
                events = decide_(state)
                if not events:
                    return state
                envelope = self._envelope(events, by)
                try:
                    sequence = await self._append_one(subject, state.seq, envelope)
                except LostRaceError:
                    await self.catch_up(subject)
                    continue
                return self.projection.apply_space(space, envelope, sequence)
        raise _too_many_races(space)

    async def state(self, task_id: str) -> TaskState | None:
        """What is known of a task; one that has left memory is read from the log."""
        known = self.projection.tasks.get(task_id)
        if known is not None or not self.caught_up.is_set():
            return known
        loaded = await self.load(task_id)
        if loaded is not None:
            return loaded
        with suppress(ApplianceError):  # the newest entries may have been purged: then nothing comes any more, and there is no such task
            await self.sync(LOOK_AGAIN_SECONDS)  # a server that lags answers "nothing" too
        return self.projection.tasks.get(task_id)

    async def _before(self, task_id: str, command: cm.Command) -> TaskState | None:
        """What to decide on. A task that shall be made is not looked up: if it exists, the append loses its race, and that tells."""
        return self.projection.tasks.get(task_id) if isinstance(command, cm.Create) else await self.state(task_id)

    async def load(self, task_id: str) -> TaskState | None:
        """A task from the log; None when there is none. It does not enter the projection unless it is open."""
        state: TaskState | None = None
        recorded = await self._event_log.read(f"{TASKS}.*.{subject_token(task_id)}")
        for entry in recorded:
            state = apply_envelope(state, task_id, decode_envelope(entry.body), entry.sequence)
        if state is not None and state.dropped:
            return None
        if state is not None and not state.is_terminal:
            for entry in recorded:
                self.projection.absorb(entry)
        return state

    async def history(self, state: TaskState) -> Sequence[Recorded]:
        """Every entry of a task, oldest first."""
        return await self._event_log.read(task_subject(state.space, state.id))

    async def catch_up(self, subject: str) -> None:
        """Take in what others have appended to one subject; what is known already is skipped."""
        entries = await self._event_log.read(subject)
        for recorded in entries:
            self.projection.absorb(recorded)
        kind, *names = subject_names(subject)
        if kind == TASKS and not entries:
            self.projection.vanish(names[-1])

    async def sync(self, seconds: float = SYNC_SECONDS) -> None:
        """Return when everything is known that was in the log when this was called: for whoever misses what another replica has acknowledged.

        Raises:
            ApplianceError: ``unavailable`` when that takes too long.
        """
        last = await self._event_log.last_sequence()
        try:
            async with asyncio.timeout(seconds):
                while self.projection.position < last:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError as exc:
            raise ApplianceError("unavailable", "this replica lags behind the log", hint="try again, or ask another one") from exc

    def listen_raw(self, listener: Callable[[Sequence[Recorded]], None]) -> None:
        """Be given every batch of the tail as it was recorded, in the order of the log."""
        self._raw_listeners.append(listener)

    async def follow(self) -> None:
        """Take in the tail, for ever. ``caught_up`` is set when its end was reached for the first time."""
        while True:
            try:
                async for batch in self._event_log.tail(self.projection.position):
                    await asyncio.sleep(0)  # callers whose appends were acknowledged apply them first, and need not decode them again
                    await self._take_in(batch)
            except ApplianceError as error:
                if error.code != "unavailable":
                    raise
                _log.warning("tail_interrupted", error=error.message)
                await asyncio.sleep(_RETRY_TAIL_SECONDS)

    async def _take_in(self, batch: Sequence[Recorded]) -> None:
        if not batch:
            self.caught_up.set()
            return
        for recorded in batch:
            if not self.projection.absorb(recorded):
                await self.load(subject_names(recorded.subject)[-1])
        self.projection.position = batch[-1].sequence
        self._moved.set()
        for listener in self._raw_listeners:
            listener(batch)

    async def _refreshed(self, state: TaskState) -> bool:
        """Take in what the log has behind ``state``; True."""
        for recorded in await self._event_log.read(task_subject(state.space, state.id), after=state.seq):
            self.projection.absorb(recorded)
        return True

    def _decide(self, task_id: str, space: str | None, state: TaskState | None, commands: Sequence[cm.Command], by: str) -> Decision:
        now = self.now()
        events: list[Happening] = []
        tentative = state
        for index, command in enumerate(commands):
            fresh = decide(tentative, command, now)
            events += fresh
            if not fresh and isinstance(command, cm.Create):
                break  # it was there already: what follows was meant for a new task
            if fresh and index + 1 < len(commands):
                step = Envelope(v=SCHEMA_VERSION, at=now, by=by, events=tuple(fresh))
                tentative = apply_envelope(tentative, task_id, step, tentative.seq + 1 if tentative else 1)
        where = state.space if state is not None else space
        if where is None:
            raise ApplianceError("not_found", "task not found", hint="check the id")
        envelope = self._envelope(events, by, now) if events else None
        return Decision(task_id, task_subject(where, task_id), state, envelope)

    def _envelope(self, events: Sequence[Happening], by: str, now: float | None = None) -> Envelope:
        trace = correlation_id.get()
        at = self.now() if now is None else now
        return Envelope(v=SCHEMA_VERSION, at=at, by=by, cmd=new_id(""), trace=trace or "", events=tuple(events))

    async def _append(self, decision: Decision) -> TaskState:
        (sequence,) = await self._event_log.append((_entry(decision),))
        return self._applied(decision, sequence)

    def _applied(self, decision: Decision, sequence: int) -> TaskState:
        known = self.projection.tasks.get(decision.task_id)
        if known is not None and known.seq >= sequence:
            return known  # the tail was faster
        if decision.envelope is None:
            return _known(decision.state)
        if known is None and decision.state is not None:
            self.projection.put_task(None, decision.state)
        return self.projection.apply_task(decision.task_id, decision.envelope, sequence)

    async def _append_one(self, subject: str, expected: int, envelope: Envelope) -> int:
        (sequence,) = await self._event_log.append((Entry(subject, expected, encode_envelope(envelope), envelope.cmd),))
        return sequence


class _Gate:
    """One decision at a time per subject; waiters queue in order. Costs nothing when nobody waits."""

    __slots__ = ("_gates", "_key", "_mine")

    def __init__(self, gates: dict[str, asyncio.Future[None]], key: str) -> None:
        self._gates = gates
        self._key = key

    async def __aenter__(self) -> None:
        while (busy := self._gates.get(self._key)) is not None:
            await asyncio.shield(busy)
        self._mine = asyncio.get_running_loop().create_future()
        self._gates[self._key] = self._mine

    async def __aexit__(self, *_: object) -> None:
        del self._gates[self._key]
        self._mine.set_result(None)


def _entry(decision: Decision) -> Entry:
    if decision.envelope is None:
        raise TypeError
    expected = decision.state.seq if decision.state is not None else 0
    return Entry(decision.subject, expected, encode_envelope(decision.envelope), decision.envelope.cmd)


def _known(state: TaskState | None) -> TaskState:
    if state is None:
        raise ApplianceError("not_found", "task not found", hint="check the id")
    return state


def _too_many_races(what: str) -> ApplianceError:
    return ApplianceError("overloaded", "too many others change the same thing at once", hint="try again", what=what)
