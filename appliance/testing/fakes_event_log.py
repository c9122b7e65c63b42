"""The event log, object store and leases in memory: as exact as the real ones (they pass the same checks), with switches for what goes wrong.

``MemoryEventLog`` decides, then answers: a *lost reply* is stored and answered ``unavailable``; a *conflict* is refused as if somebody else had been
first; a *delay* waits for an event that the test sets. Several replicas in one test share one object.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence

from appliance.contracts.orchestrator.v1.log import Entry, Extent, LostRaceError, Recorded
from appliance.kit.errors import ApplianceError

_LARGEST_BODY: int = 8 * 1024 * 1024 - 512
_MOST_ENTRIES: int = 1000
_ENTRY_BYTES: int = 60


class MemoryEventLog:
    """``EventLog`` in memory.

    Attributes:
        lose_replies: how many of the next appends are stored but answered ``unavailable``.
        refuse: how many of the next appends find the log unreachable; nothing is stored.
        conflict_on: called with every append's entries; True refuses it as a lost race though nobody wrote.
        gate: what every append waits for before it is carried out (None: nothing).
        appended: every append that was stored, in order, for assertions.
    """

    def __init__(self) -> None:
        self.lose_replies = 0
        self.refuse = 0
        self.conflict_on: Callable[[Sequence[Entry]], bool] | None = None
        self.gate: asyncio.Event | None = None
        self.appended: list[Sequence[Entry]] = []
        self._entries: list[Recorded] = []
        self._newest: dict[str, int] = {}
        self._by_subject: dict[str, list[Recorded]] = {}
        self._last = 0
        self._first = 1
        self._news = asyncio.Condition()

    async def append(self, entries: Sequence[Entry]) -> Sequence[int]:
        """See the port."""
        _check(entries)
        if not entries:
            return ()
        await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
        if self.refuse:
            self.refuse -= 1
            raise ApplianceError("unavailable", "the event log does not answer (as told)")
        if (again := self._stored_before(entries)) is not None:
            return again
        lost = [entry.subject for entry in entries if self._newest.get(entry.subject, 0) != entry.expected]
        if lost or (self.conflict_on is not None and self.conflict_on(entries)):
            raise LostRaceError(lost or [entry.subject for entry in entries])
        sequences = self._store(entries)
        async with self._news:
            self._news.notify_all()
        if self.lose_replies:
            self.lose_replies -= 1
            raise ApplianceError("unavailable", "the reply of the event log was lost (as told)")
        return sequences

    async def read(self, subject: str, after: int = 0) -> Sequence[Recorded]:
        """See the port."""
        await asyncio.sleep(0)
        if "*" in subject or subject.endswith(">"):
            names = {name for name in self._by_subject if _matches(subject.split("."), name.split("."))}
            return [one for one in self._entries if one.subject in names and one.sequence > after]
        return [one for one in self._by_subject.get(subject, ()) if one.sequence > after]

    async def tail(self, after: int) -> AsyncIterator[Sequence[Recorded]]:
        """See the port."""
        position = after
        while True:
            if position + 1 < self._first and position < self._last:
                raise ApplianceError(
                    "event_unknown", f"the log begins at {self._first}, entries behind {position} were purged", hint="load a snapshot"
                )
            if position > self._last:
                raise ApplianceError("log_unsafe", f"the log ends at {self._last}, it had {position} before")
            batch = [one for one in self._entries if one.sequence > position]
            if batch:
                position = batch[-1].sequence
                yield batch
            else:
                position = self._last
                yield []
                async with self._news:
                    while self._last <= position:
                        await self._news.wait()

    async def purge(self, subject: str, *, keep: int = 0, below: int | None = None) -> None:
        """See the port."""
        matching = await self.read(subject)
        gone = {one.sequence for one in (matching[: len(matching) - keep] if below is None else [one for one in matching if one.sequence < below])}
        self._entries = [one for one in self._entries if one.sequence not in gone]
        self._first = self._entries[0].sequence if self._entries else self._last + 1
        for name in {one.subject for one in matching}:
            left = [one for one in self._by_subject[name] if one.sequence not in gone]
            self._by_subject[name] = left
            self._newest[name] = left[-1].sequence if left else 0

    async def last_sequence(self) -> int:
        """See the port."""
        return self._last

    async def extent(self) -> Extent:
        """See the port."""
        return Extent(self._first, self._last, sum(len(one.subject) + len(one.body) + _ENTRY_BYTES for one in self._entries))

    async def check(self) -> str:
        """See the port."""
        return f"in memory; {len(self._entries)} entries"

    def _stored_before(self, entries: Sequence[Entry]) -> Sequence[int] | None:
        """Sequences when these very entries are in the log already."""
        first = entries[0]
        behind = next((one for one in self._by_subject.get(first.subject, ()) if one.sequence > first.expected), None)
        if behind is None or not first.message_id or behind.message_id != first.message_id:
            return None
        return range(behind.sequence, behind.sequence + len(entries))

    def _store(self, entries: Sequence[Entry]) -> Sequence[int]:
        first = self._last + 1
        for entry in entries:
            self._last += 1
            recorded = Recorded(entry.subject, self._last, entry.body, entry.message_id or f"m{self._last}")
            self._entries.append(recorded)
            self._by_subject.setdefault(entry.subject, []).append(recorded)
            self._newest[entry.subject] = self._last
        self.appended.append(tuple(entries))
        return range(first, self._last + 1)


class MemoryObjectStore:
    """``ObjectStore`` in memory. ``damage`` makes the next ``get`` of a name find other bytes."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, bytes]] = {}

    async def put(self, name: str, data: bytes) -> None:
        """See the port."""
        await asyncio.sleep(0)
        self._objects[name] = data, hashlib.sha256(data).digest()

    async def get(self, name: str) -> bytes | None:
        """See the port."""
        await asyncio.sleep(0)
        if (found := self._objects.get(name)) is None:
            return None
        data, digest = found
        if hashlib.sha256(data).digest() != digest:
            raise ApplianceError("snapshot_altered", f"{name} is not what was stored", hint="an older one is used where there is one")
        return data

    async def delete(self, name: str) -> None:
        """See the port."""
        self._objects.pop(name, None)

    async def names(self, prefix: str) -> Sequence[str]:
        """See the port."""
        return sorted(name for name in self._objects if name.startswith(prefix))

    def damage(self, name: str) -> None:
        """Change its bytes, not its digest."""
        data, digest = self._objects[name]
        self._objects[name] = data + b"!", digest


class MemoryLeases:
    """``Leases`` in memory."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[int, float]] = {}
        self._changes: list[tuple[str, int, float]] = []
        self._news = asyncio.Condition()

    async def renew(self, executor: str, incarnation: int, until: float) -> None:
        """See the port."""
        self._values[executor] = incarnation, until
        async with self._news:
            self._changes.append((executor, incarnation, until))
            self._news.notify_all()

    async def watch(self) -> AsyncIterator[tuple[str, int, float]]:
        """See the port."""
        seen = len(self._changes)
        for executor, (incarnation, until) in list(self._values.items()):
            yield executor, incarnation, until
        while True:
            async with self._news:
                while len(self._changes) <= seen:
                    await self._news.wait()
            changes, seen = self._changes[seen:], len(self._changes)
            for change in changes:
                yield change


def _matches(pattern: Sequence[str], tokens: Sequence[str]) -> bool:
    if pattern[-1] == ">":
        pattern, tokens = pattern[:-1], tokens[: len(pattern) - 1]
    return len(pattern) == len(tokens) and all(one in ("*", token) for one, token in zip(pattern, tokens, strict=True))


def _check(entries: Sequence[Entry]) -> None:
    if any(len(entry.body) > _LARGEST_BODY for entry in entries) or len(entries) > _MOST_ENTRIES:
        raise ApplianceError("too_large", "too much for one append")
    if len({entry.subject for entry in entries}) != len(entries):
        raise ApplianceError("invalid_request", "entries that are appended together have distinct subjects")
