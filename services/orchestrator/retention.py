"""What leaves the log: entries below a compaction, and ended tasks that are too old or for which there is no room. Owns: choosing and dropping them.

Every replica has one; they may do the same thing at once. The log is read from its beginning, where the oldest is, a bounded piece per round; what ended
first goes first.

Invariants:
1. An open task is never dropped, nor one that an open task depends on.
2. Nothing is dropped that not *every* kept snapshot covers (``Snapshots.covered``): from any of them, and from the log alone, a replica comes to the same.
3. A task is dropped by an entry of its own (``TaskDropped``) that won its compare-and-set: nothing can be written behind it, so a task that an operator
   reopens at that moment is either kept or gone, never half. All replicas forget it then. Its checkpoints and its entries go when that entry is covered
   too, so no replica that starts from a snapshot misses it; a later round meets it, whoever wrote it.
4. Entries below a compaction go only when the compaction itself is covered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from enum import Enum
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import Compacted, Envelope, SpaceCompacted
from services.orchestrator.domain.registry import ExecutorState, SpaceState, compacted_space
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.domain.upcasting import decode_envelope
from services.orchestrator.ports import EventLog, Recorded
from services.orchestrator.replica import Replica
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.snapshots import Snapshots
from services.orchestrator.subjects import TASKS, executor_subject, space_subject, subject_names, task_subject
from services.orchestrator.task_checkpoints import TaskCheckpoints

BY: Final = "system:janitor"
ROUND_SECONDS: Final = 60.0
MOST_READ: Final = 20_000
MOST_DROPPED: Final = 500
MOST_COMPACTED: Final = 20
MOST_REGISTRATIONS: Final = 16
ROOM: Final = 0.8
"""Share of ``max_log_bytes`` that is kept free of ended tasks' pressure: at 1.0 the log would refuse what is new."""
_DAY: Final = 86_400.0
_YOUNG_IN_A_ROW: Final = 100  # entries are in the order of time, but for clocks that jumped
_ENTRY_BYTES: Final = 300  # of an entry's envelope and its place in the log, about
_ENDED: Final = (b'"name":"TaskCompleted"', b'"name":"TaskFailed"')
_DROPPED: Final = b'"name":"TaskDropped"'
_log = get_logger(__name__)


class Verdict(Enum):
    """What became of a task that had ended."""

    KEPT = "kept"
    YOUNG = "young"
    DROPPED = "dropped"


class Retention:
    """See the module.

    Args:
        replica: takes the commands.
        log: what is cleaned.
        snapshots: what they cover may go.
        checkpoints: go with their tasks.
        settings: ``retention_days``, ``max_log_bytes``, ``compact_after_entries``.
    """

    def __init__(self, replica: Replica, log: EventLog, snapshots: Snapshots, checkpoints: TaskCheckpoints, settings: OrchestratorSettings) -> None:
        self._replica = replica
        self._projection = replica.projection
        self._event_log = log
        self._snapshots = snapshots
        self._checkpoints = checkpoints
        self._settings = settings
        self._long: dict[str, None] = {}
        self._too_large: dict[str, int] = {}
        self._to_purge: dict[str, int] = {}
        self._leaving: dict[str, int] = {}
        self._registrations: dict[str, int] = {}
        self._excess = 0
        self._cursor = 0
        for state in list(self._projection.tasks.values()):
            self._note_long(state)
        self._projection.listen(task=self._changed, executor=self._executor_changed)

    async def run(self) -> None:
        """A round now and then, for ever."""
        await self._replica.caught_up.wait()
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            try:
                await self.round()
            except ApplianceError as error:
                _log.warning("retention_delayed", code=error.code, error=error.message)

    async def round(self) -> int:
        """Compact, purge, drop: a bounded piece of each. How many tasks were dropped."""
        await self._compact_tasks()
        await self._compact_spaces()
        covered = await self._snapshots.covered()
        if not covered:
            return 0
        for subject, sequence in list(self._to_purge.items()):
            if sequence <= covered:
                await self._event_log.purge(subject, below=sequence)
                del self._to_purge[subject]
        await self._purge_registrations(covered)
        return await self._drop_ended(covered)

    async def _purge_registrations(self, covered: int) -> None:
        """What lies below an executor's newest registration: one that registers again and again must not fill the log."""
        for executor_id in [one for one, count in self._registrations.items() if count > MOST_REGISTRATIONS]:
            state = self._projection.executors[executor_id]
            if 0 < state.registered_seq <= covered:
                await self._event_log.purge(executor_subject(executor_id), below=state.registered_seq)
                del self._registrations[executor_id]

    def _executor_changed(self, state: ExecutorState) -> None:
        self._registrations[state.id] = self._registrations.get(state.id, 0) + 1

    def _changed(self, _before: TaskState | None, after: TaskState, _envelope: Envelope) -> None:
        if after.dropped:
            self._leaving[task_subject(after.space, after.id)] = len(msgspec.json.encode(after)) + after.entries * _ENTRY_BYTES
            self._too_large.pop(after.id, None)
        else:
            self._note_long(after)

    def _note_long(self, state: TaskState) -> None:
        if state.entries > max(self._settings.compact_after_entries, self._too_large.get(state.id, 0)) and not state.is_terminal:
            self._long[state.id] = None

    async def _compact_tasks(self) -> None:
        for task_id in list(self._long)[:MOST_COMPACTED]:
            del self._long[task_id]
            state = self._projection.tasks.get(task_id)
            if state is None or state.is_terminal or state.entries <= self._settings.compact_after_entries:
                continue
            subject = task_subject(state.space, task_id)
            try:
                await self._replica.execute(task_id, None, cm.Compact(), by=BY)
            except ApplianceError as error:
                if error.code != "too_large":
                    raise
                self._too_large[task_id] = state.entries * 2  # its state is larger than an entry may be; the entries stay
                continue
            await self._note_compaction(subject, state.seq)

    async def _compact_spaces(self) -> None:
        most = self._settings.compact_after_entries

        def decide(space: SpaceState) -> Sequence[SpaceCompacted]:
            return (compacted_space(space),) if space.entries > most else ()

        for space in [space for space in self._projection.spaces.values() if space.entries > most][:MOST_COMPACTED]:
            await self._replica.change_space(space.space, decide, by=BY)
            await self._note_compaction(space_subject(space.space), space.seq)

    async def _note_compaction(self, subject: str, after: int) -> None:
        """Where the compaction is: only what lies below that very entry may go, others may have been written behind it."""
        for recorded in await self._event_log.read(subject, after):
            if any(isinstance(event, Compacted | SpaceCompacted) for event in decode_envelope(recorded.body).events):
                self._to_purge[subject] = recorded.sequence

    async def _drop_ended(self, covered: int) -> int:
        extent = await self._event_log.extent()
        self._excess = extent.size_bytes - int(self._settings.max_log_bytes * ROOM)
        too_old = self._replica.now() - self._settings.retention_days * _DAY
        found, self._cursor = await self._entries(max(self._cursor, extent.first - 1), covered)
        dropped = young = 0
        for recorded in found:
            verdict = await self._consider(recorded, too_old)
            dropped += verdict is Verdict.DROPPED
            young = young + 1 if verdict is Verdict.YOUNG else 0
            if young >= _YOUNG_IN_A_ROW:
                self._cursor = 0  # what follows is younger: begin again with the oldest
                break
            if dropped >= MOST_DROPPED:
                self._cursor = recorded.sequence
                break
        if self._is_crowded() and not dropped and not self._cursor:
            _log.warning("log_crowded", size_bytes=extent.size_bytes, open_tasks=self._projection.open_count)
        return dropped

    def _is_crowded(self) -> bool:
        """Whether there is too much even when everything goes that was dropped already."""
        return self._excess > sum(self._leaving.values())

    async def _entries(self, position: int, covered: int) -> tuple[list[Recorded], int]:
        """A piece of the log behind ``position``: ends and drops of tasks up to ``covered``; and where to go on, 0 when all of it was read."""
        found: list[Recorded] = []
        read = 0
        async with aclosing(self._event_log.tail(position)) as tail:  # type: ignore[type-var]  # an async generator in every adapter
            async for batch in tail:
                found += [one for one in batch if one.sequence <= covered and (_DROPPED in one.body or any(name in one.body for name in _ENDED))]
                read += len(batch)
                if not batch or batch[-1].sequence >= covered:
                    return found, 0
                if read >= MOST_READ:
                    return found, batch[-1].sequence
        return found, 0

    async def _consider(self, recorded: Recorded, too_old: float) -> Verdict:
        """Drop the task that ended here, if it may go; finish one that was dropped."""
        kind, *names = subject_names(recorded.subject)
        if kind != TASKS:
            return Verdict.KEPT
        task_id = names[-1]
        if _DROPPED in recorded.body:
            await self._finish(recorded.subject, task_id)
            return Verdict.KEPT
        if not self._is_crowded() and decode_envelope(recorded.body).at >= too_old:
            return Verdict.YOUNG
        if recorded.subject in self._leaving or self._is_needed(task_id):
            return Verdict.KEPT
        state = await self._replica.state(task_id)
        if state is None or not state.is_terminal or state.seq != recorded.sequence:
            return Verdict.KEPT
        try:
            await self._replica.execute(task_id, None, cm.Drop(), by=BY)
        except ApplianceError as error:
            if error.code in {"task_state", "not_found"}:
                return Verdict.KEPT  # reopened, or dropped by another replica
            raise
        return Verdict.DROPPED

    async def _finish(self, subject: str, task_id: str) -> None:
        await self._checkpoints.drop_all(task_id)
        await self._event_log.purge(subject)
        self._to_purge.pop(subject, None)
        self._leaving.pop(subject, None)

    def _is_needed(self, task_id: str) -> bool:
        dependents = (self._projection.tasks.get(one) for one in self._projection.dependents.get(task_id, ()))
        return any(one is not None and not one.is_terminal for one in dependents)
