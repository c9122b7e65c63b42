"""A thread as its entries tell it: checkpoints, pending writes, values of channels. Pure; owns the fold and what of it survives a pruning.

Invariants:
1. The fold is idempotent: a checkpoint of the same id replaces, a write of the same task and index stays (special ones, with negative index, replace).
2. ``rewritten`` holds every value that a kept checkpoint refers to, once.
3. Pruning keeps the ancestors that a delta channel of a kept checkpoint is rebuilt from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from services.orchestrator.langgraph.thread_events import Blob, CheckpointPut, ThreadEvent, Version, Write, WritesPut

EMPTY = "empty"
"""Kind of a value that a channel has no more."""


class CheckpointKey(NamedTuple):
    """Which checkpoint of a thread."""

    ns: str
    id: str


class StoredWrite(NamedTuple):
    """A pending write; sorts as LangGraph applies the writes of one step (``writes_sort_key``)."""

    path: str
    task: str
    number: int
    channel: str
    value: Blob


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """One checkpoint with everything that belongs to it, not deserialised."""

    key: CheckpointKey
    parent: str
    checkpoint: Blob
    metadata: Blob
    versions: Mapping[str, Version]
    values: Mapping[str, Blob]
    writes: tuple[StoredWrite, ...]
    run: str
    deltas: Collection[str]


class ThreadState:
    """The fold. ``sequence`` is that of its newest entry in the log, ``size_bytes`` what its entries take."""

    def __init__(self) -> None:
        self.sequence = 0
        self.size_bytes = 0
        self.objects: set[str] = set()
        self._checkpoints: dict[str, dict[str, CheckpointPut]] = {}
        self._values: dict[tuple[str, str, Version], Blob] = {}
        self._writes: dict[CheckpointKey, dict[tuple[str, int], StoredWrite]] = {}

    def apply(self, event: ThreadEvent) -> None:
        """Take in one event."""
        if isinstance(event, WritesPut):
            known = self._writes.setdefault(CheckpointKey(event.ns, event.id), {})
            for write in event.writes:
                if write.index < 0 or (event.task, write.index) not in known:
                    known[event.task, write.index] = StoredWrite(event.path, event.task, write.index, write.channel, write.value)
            return
        self._checkpoints.setdefault(event.ns, {})[event.id] = event
        for channel, (version, blob) in event.values.items():
            self._values[event.ns, channel, version] = blob

    def keys(self) -> list[CheckpointKey]:
        """Every checkpoint, newest first in each namespace."""
        return [CheckpointKey(ns, id_) for ns, known in self._checkpoints.items() for id_ in sorted(known, reverse=True)]

    def newest(self, ns: str) -> CheckpointKey | None:
        """The newest checkpoint of a namespace."""
        known = self._checkpoints.get(ns)
        return CheckpointKey(ns, max(known)) if known else None

    def get(self, key: CheckpointKey) -> StoredCheckpoint | None:
        """One checkpoint; None when there is none."""
        if (put := self._checkpoints.get(key.ns, {}).get(key.id)) is None:
            return None
        found = {channel: self._values.get((key.ns, channel, version)) for channel, version in put.versions.items()}
        values = {channel: blob for channel, blob in found.items() if blob is not None and blob.kind != EMPTY}
        writes = tuple(sorted(self._writes.get(key, {}).values(), key=_order))
        return StoredCheckpoint(key, put.parent, put.checkpoint, put.metadata, put.versions, values, writes, put.run, put.deltas)

    def ancestors(self, key: CheckpointKey) -> Iterator[StoredCheckpoint]:
        """Its parent, that one's parent, and so on."""
        found = self.get(key)
        seen = {key.id}
        while found is not None and found.parent and found.parent not in seen:
            seen.add(found.parent)
            found = self.get(CheckpointKey(key.ns, found.parent))
            if found is not None:
                yield found

    def without_runs(self, runs: Collection[str]) -> set[CheckpointKey]:
        """What stays when these runs are deleted."""
        return {CheckpointKey(ns, put.id) for ns, known in self._checkpoints.items() for put in known.values() if put.run not in runs}

    def latest_only(self) -> set[CheckpointKey]:
        """What a pruning keeps: the newest checkpoint of each namespace, and what its delta channels are rebuilt from."""
        kept: set[CheckpointKey] = set()
        for ns in self._checkpoints:
            newest = self.newest(ns)
            stored = self.get(newest) if newest is not None else None
            if stored is None:
                continue
            kept.add(stored.key)
            missing = {name for name in stored.deltas if name not in stored.values}
            for ancestor in self.ancestors(stored.key):
                if not missing:
                    break
                kept.add(ancestor.key)
                missing -= ancestor.values.keys()
        return kept

    def rewritten(self, kept: Collection[CheckpointKey] | None = None) -> tuple[ThreadEvent, ...]:
        """The events that tell of ``kept`` (None: of all checkpoints, and of writes that wait for theirs) and of nothing else."""
        events: list[ThreadEvent] = []
        told: set[tuple[str, str, Version]] = set()
        for key in sorted(self.keys() if kept is None else kept):
            put = self._checkpoints[key.ns][key.id]
            values: dict[str, tuple[Version, Blob]] = {}
            for channel, version in put.versions.items():
                name = (key.ns, channel, version)
                if name in self._values and name not in told:
                    told.add(name)
                    values[channel] = version, self._values[name]
            events.append(msgspec.structs.replace(put, values=values))
        events += [_writes_event(key, write) for key in self._writes if kept is None or key in kept for write in self._writes[key].values()]
        return tuple(events)


def _order(write: StoredWrite) -> tuple[str, str, int]:
    return write.path, write.task, write.number


def _writes_event(key: CheckpointKey, write: StoredWrite) -> WritesPut:
    return WritesPut(key.ns, key.id, write.task, write.path, (Write(write.number, write.channel, write.value),))
