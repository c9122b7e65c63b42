"""Snapshots of everything that a replica knows, so that a start reads one and the tail behind it, not the whole log. Owns: when, how many, which is loaded.

Taken while work goes on: the references of the states are copied in one step of the event loop, encoding happens in a thread (``snapshot_files``). Each
replica writes its own; a snapshot of another that is new enough counts as one's own.

Invariants:
1. A snapshot at position P, with the log behind P, gives the same state as the whole log.
2. What retention may drop is covered by the *oldest* snapshot that is kept (:meth:`Snapshots.covered`): if the newest ones are damaged, an older one with
   its tail, or the log alone, still gives the same state.
3. A damaged snapshot costs a line in the log of the process and a longer start, never a start.

Annexes are what listeners have noted of entries before P and not yet acted on (events that schedules wait for); they are taken in the same step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator import snapshot_files as files
from services.orchestrator.identifiers import new_id
from services.orchestrator.ports import EventLog, ObjectStore, Recorded
from services.orchestrator.replica import Replica
from services.orchestrator.settings import OrchestratorSettings

KEPT: Final = 3
ORPHAN_SECONDS: Final = 3600.0
_LOOK_SECONDS: Final = 5.0
_log = get_logger(__name__)


class Snapshots:
    """See the module. Make it, and call :meth:`restore`, before the replica follows the log.

    Args:
        replica: whose projection is written and filled.
        log: to know where it begins.
        store: where snapshots are.
        settings: ``snapshot_seconds``, ``snapshot_events``, ``snapshot_bytes``.
        annexes: name → what is kept besides, as something that msgspec encodes; called when a snapshot is taken.
        monotonic: seconds that never jump.
    """

    def __init__(
        self, replica: Replica, log: EventLog, store: ObjectStore, settings: OrchestratorSettings,
        annexes: dict[str, Callable[[], object]] | None = None, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._replica = replica
        self._event_log = log
        self._store = store
        self._settings = settings
        self._annexes = annexes or {}
        self._monotonic = monotonic
        self._written_at = monotonic()
        self._written_position = 0
        self._bytes = 0
        self._busy = asyncio.Lock()
        replica.listen_raw(self._count)

    async def restore(self) -> dict[str, msgspec.Raw]:
        """Fill the empty projection from the newest snapshot that is whole; its annexes. Without one the whole log is replayed.

        Raises:
            ApplianceError: ``unavailable``.
        """
        extent = await self._event_log.extent()
        for name in reversed(await self._names()):
            try:
                states = await files.read(self._store, name)
            except ApplianceError as error:
                if error.code == "unavailable":
                    raise
                _log.warning("snapshot_skipped", name=name, code=error.code, error=error.message)
                continue
            if not extent.first - 1 <= states.position <= extent.last:
                _log.warning("snapshot_skipped", name=name, code="log_unsafe", error=f"the log has {extent.first} to {extent.last}")
                continue
            self._replica.projection.load(states.tasks, states.executors, states.spaces, states.position)
            self._written_position = states.position
            _log.info("snapshot_loaded", name=name, tasks=len(states.tasks), position=states.position)
            return states.annexes
        self._replica.projection.position = extent.first - 1
        return {}

    async def run(self) -> None:
        """Write one whenever it is due, for ever."""
        await self._replica.caught_up.wait()
        while True:
            try:
                await self.write_if_due()
            except ApplianceError as error:
                _log.warning("snapshot_delayed", code=error.code, error=error.message)
            await asyncio.sleep(_LOOK_SECONDS)

    async def write_if_due(self) -> bool:
        """Whether one was written."""
        if not self._is_due():
            return False
        newest = await self.newest()
        if newest > self._written_position:  # another replica's
            self._written(newest)
            if not self._is_due():
                return False
        await self.write()
        return True

    async def write(self) -> int:
        """Write one now; its position."""
        async with self._busy:
            projection, position = self._replica.projection, self._replica.projection.position
            states = files.SnapshotStates(
                position=position, tasks=list(projection.tasks.values()), executors=list(projection.executors.values()),
                spaces=list(projection.spaces.values()),
                annexes={name: msgspec.Raw(msgspec.json.encode(annex())) for name, annex in self._annexes.items()},
            )  # fmt: skip
            taken_bytes = self._bytes
            started, made_at = self._monotonic(), self._replica.now()
            name = files.snapshot_name(position, made_at, new_id(""))
            size = await files.write(self._store, name, states, made_at, self._replica.name)
            self._written(position, self._bytes - taken_bytes)
            seconds = round(self._monotonic() - started, 3)
            _log.info("snapshot_written", position=position, tasks=len(states.tasks), size_bytes=size, seconds=seconds)
            await self._drop_old()
            return position

    async def newest(self) -> int:
        """Position of the newest one, 0 when there is none."""
        return max((files.position_of(name) for name in await self._names()), default=0)

    async def covered(self) -> int:
        """Up to which sequence every kept snapshot knows everything; 0 until there are two: one alone may be damaged."""
        positions = [files.position_of(name) for name in (await self._names())[-KEPT:]]
        return min(positions) if len(positions) > 1 else 0

    def _count(self, batch: Sequence[Recorded]) -> None:
        self._bytes += sum(len(recorded.body) for recorded in batch)

    def _is_due(self) -> bool:
        events = self._replica.projection.position - self._written_position
        if events <= 0:
            return False
        settings = self._settings
        late = self._monotonic() - self._written_at >= settings.snapshot_seconds
        return late or events >= settings.snapshot_events or self._bytes >= settings.snapshot_bytes

    def _written(self, position: int, bytes_since: int = 0) -> None:
        self._written_position, self._written_at, self._bytes = position, self._monotonic(), bytes_since

    async def _names(self) -> list[str]:
        """Of snapshots that are complete, oldest first."""
        names = await self._store.names(files.FOLDER)
        return sorted(name.removesuffix("/manifest") for name in names if name.endswith("/manifest") and files.position_of(name) >= 0)

    async def _drop_old(self) -> None:
        """All but the newest, and what a crash left half written. The manifest goes first: what has none is no snapshot."""
        kept = set((await self._names())[-KEPT:])
        gone: set[str] = set()
        for name in await self._store.names(files.FOLDER):
            snapshot = name.rpartition("/")[0]
            if snapshot not in kept and (files.position_of(snapshot) >= 0):
                gone.add(snapshot)
        for snapshot in gone:
            if not await self._is_being_written(snapshot):
                for name in [f"{snapshot}/manifest", *(await self._store.names(f"{snapshot}/"))]:
                    with suppress(ApplianceError):
                        await self._store.delete(name)

    async def _is_being_written(self, snapshot: str) -> bool:
        """It has no manifest yet, and is not old: another replica is at it."""
        made_at = int(snapshot.split("-")[1]) / 1000
        if abs(self._replica.now() - made_at) > ORPHAN_SECONDS:
            return False
        return f"{snapshot}/manifest" not in await self._store.names(f"{snapshot}/")
