"""Threads of LangGraph graphs on an event log: reading, appending, rewriting, deleting. Owns what of them is in memory; knows nothing of LangGraph.

Invariants:
1. A read sees everything that was acknowledged before it, by whatever process: what is known is extended from the log first.
2. Events of one thread are appended one entry after the other by compare-and-set; those that wait meanwhile share the next entry.
3. An entry never refers to an object that is not stored. The reverse may happen after a crash: an object nobody refers to.
4. Memory is bounded: threads that were not used for longest are forgotten and read again from the log.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.langgraph.thread_events import (
    GRAPHS,
    Blob,
    Event,
    Packed,
    ThreadEvent,
    encode,
    pack,
    thread_of,
    thread_subject,
)  # fmt: skip
from services.orchestrator.langgraph.thread_reading import STALE_READS, ThreadReader
from services.orchestrator.langgraph.thread_state import CheckpointKey, ThreadState
from services.orchestrator.langgraph.thread_values import EVENT_BYTES, ThreadValues
from services.orchestrator.ports import Entry, EventLog, LostRaceError, ObjectStore, Recorded
from services.orchestrator.subjects import subject_token

CACHE_BYTES: Final = 64 * 1024 * 1024
_THREAD_BYTES: Final = 1024  # what a thread takes in memory beside its entries, about
_MOST_TRIES: Final = 32
_MOST_WAITING: Final = 10_000


class _Waiting:
    """An event on its way into the log."""

    __slots__ = ("error", "event", "size", "stored")

    def __init__(self, event: Event, size: int) -> None:
        self.event = event
        self.size = size
        self.stored = False
        self.error: Exception | None = None


class _Thread:
    """One thread in memory."""

    __slots__ = ("counted", "id", "lock", "state", "subject", "users", "waiting")

    def __init__(self, space: str, thread: str) -> None:
        self.id = thread
        self.subject = thread_subject(space, thread)
        self.state = ThreadState()
        self.lock = asyncio.Lock()
        self.waiting: deque[_Waiting] = deque()
        self.users = 0
        self.counted = 0


class ThreadLog:
    """The threads of one space.

    Args:
        log: has the entries; see ``opening.GRAPHS_STREAM``.
        objects: has large values.
        space: whose threads these are.
        cache_bytes: of entries, kept in memory.
    """

    def __init__(self, log: EventLog, objects: ObjectStore, space: str, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._log = log
        self._values = ThreadValues(objects, space)
        self._reader = ThreadReader(log, self._values)
        self._space = space
        self._cache_bytes = cache_bytes
        self._known: OrderedDict[str, _Thread] = OrderedDict()
        self._size = 0

    async def state(self, thread: str) -> ThreadState:
        """What the log says of a thread now. Do not keep it over an ``await``."""
        with self._using(thread) as known:
            async with known.lock:
                return await self._refresh(known)

    async def recent_state(self, thread: str) -> ThreadState:
        """As it was read last; the log is asked only for what is not in memory."""
        found = self._known.get(thread)
        return found.state if found is not None and found.state.sequence else await self.state(thread)

    async def append(self, thread: str, event: ThreadEvent) -> None:
        """Add one event; it is durable when this returns.

        Raises:
            ApplianceError: ``unavailable``: nobody knows whether it was stored, and the same call again does no harm; ``overloaded``; ``disk_full``.
        """
        with self._using(thread) as known:
            if len(known.waiting) >= _MOST_WAITING:
                raise ApplianceError("overloaded", "too many writes of one thread wait for the event log", hint="try again in a moment")
            mine = _Waiting(*await self._values.prepared(thread, event))
            known.waiting.append(mine)
            while not mine.stored and mine.error is None:
                async with known.lock:
                    if not mine.stored and mine.error is None:
                        await self._commit_waiting(known)
            if mine.error is not None:
                raise mine.error

    async def rewrite(self, thread: str, kept: Callable[[ThreadState], Collection[CheckpointKey]]) -> None:
        """Keep these checkpoints of a thread; what else there was leaves the log."""
        with self._using(thread) as known:
            async with known.lock:
                for _ in range(_MOST_TRIES):
                    state = await self._refresh(known)
                    keys = kept(state)
                    if len(keys) == len(state.keys()):
                        return
                    if not keys:
                        await self._drop(known)
                        return
                    if await self._replace(known, state.rewritten(keys)):
                        return
        raise _too_many_races(thread)

    async def copy(self, source: str, target: str) -> None:
        """Everything of ``source`` is added to ``target``, in one entry."""
        events = (await self.state(source)).rewritten()
        if not events:
            return
        copied = [await self._values.copied(source, target, event) for event in events]
        with self._using(target) as known:
            async with known.lock:
                for _ in range(_MOST_TRIES):
                    state = await self._refresh(known)
                    packed = Packed(await self._values.contents(target, pack(tuple(copied))), replaces=False)
                    if await self._append_entry(known, state, (packed,)):
                        return
        raise _too_many_races(target)

    async def delete(self, thread: str) -> None:
        """Nothing of it is left; an unknown thread is fine."""
        with self._using(thread) as known:
            async with known.lock:
                await self._refresh(known)
                await self._drop(known)

    async def threads(self) -> Sequence[str]:
        """The ids of all threads of the space. Reads the whole log."""
        for _ in range(STALE_READS):
            try:
                return [thread async for thread in self._scan()]
            except ApplianceError as error:  # its beginning was purged in between
                if error.code != "event_unknown":
                    raise
        raise ApplianceError("unavailable", "the threads cannot be listed while so many are deleted", hint="try again")

    async def value(self, thread: str, blob: Blob) -> tuple[str, bytes]:
        """A value as the serialiser made it. Raises ApplianceError ``not_found`` when it was pruned since, ``snapshot_altered``."""
        return blob.kind, await self._values.data(thread, blob)

    async def _scan(self) -> AsyncIterator[str]:
        prefix, seen = f"{GRAPHS}.{subject_token(self._space)}.", set[str]()
        async for entry in self._entries(prefix):
            if entry.subject.startswith(prefix) and entry.subject not in seen:
                seen.add(entry.subject)
                yield thread_of(entry.body)

    async def _entries(self, prefix: str) -> AsyncIterator[Recorded]:
        """Every entry, a batch at a time; what a lagging replica did not tell of is read at last, so nothing acknowledged is missing."""
        position = (await self._log.extent()).first - 1
        async with aclosing(self._log.tail(position)) as tail:  # type: ignore[type-var]  # the port promises an iterator, the adapters are generators
            async for batch in tail:
                if not batch:
                    break
                position = batch[-1].sequence
                for entry in batch:
                    yield entry
        for entry in await self._log.read(f"{prefix}>", position):
            yield entry

    async def _refresh(self, known: _Thread) -> ThreadState:
        """Extend what is known to the end of the log."""
        state, known.state = known.state, ThreadState()  # should this be cut off half way
        known.state = await self._reader.extended(known.id, known.subject, state)
        return known.state

    async def _commit_waiting(self, known: _Thread) -> None:
        batch = _take(known.waiting)
        try:
            for _ in range(_MOST_TRIES):
                if await self._append_entry(known, known.state, tuple(one.event for one in batch)):
                    for one in batch:
                        one.stored = True
                    return
                await self._refresh(known)
            raise _too_many_races(known.id)
        except asyncio.CancelledError:
            known.waiting.extendleft(reversed(batch))  # the next one stores them: twice does no harm
            raise
        except Exception as exc:
            for one in batch:
                one.error = exc
            raise

    async def _append_entry(self, known: _Thread, state: ThreadState, events: tuple[Event, ...]) -> bool:
        """False when another process was faster. What is known is read anew when nobody knows whether this was stored."""
        body = encode(known.id, events)
        known.state = ThreadState()
        try:
            (sequence,) = await self._log.append((Entry(known.subject, state.sequence, body),))
        except LostRaceError:
            known.state = state
            return False
        known.state = await self._reader.applied(known.id, state, Recorded(known.subject, sequence, body))
        return True

    async def _replace(self, known: _Thread, events: tuple[ThreadEvent, ...]) -> bool:
        before = set(known.state.objects)
        packed = Packed(await self._values.contents(known.id, pack(events)), replaces=True)
        if not await self._append_entry(known, known.state, (packed,)):
            return False
        await self._log.purge(known.subject, below=known.state.sequence)
        await self._values.delete(known.id, before - known.state.objects)
        return True

    async def _drop(self, known: _Thread) -> None:
        objects, known.state = known.state.objects, ThreadState()
        await self._log.purge(known.subject)
        await self._values.delete(known.id, objects)

    @contextmanager
    def _using(self, thread: str) -> Iterator[_Thread]:
        """A thread that is not forgotten meanwhile."""
        if (known := self._known.get(thread)) is None:
            known = self._known[thread] = _Thread(self._space, thread)
        self._known.move_to_end(thread)
        known.users += 1
        try:
            yield known
        finally:
            known.users -= 1
            size = known.state.size_bytes + _THREAD_BYTES
            self._size += size - known.counted
            known.counted = size
            self._forget()

    def _forget(self) -> None:
        """The threads that were not used for longest, until the rest fits."""
        for thread in list(self._known) if self._size > self._cache_bytes else ():
            if self._size <= self._cache_bytes:
                return
            if not self._known[thread].users:
                self._size -= self._known.pop(thread).counted


def _take(waiting: deque[_Waiting]) -> list[_Waiting]:
    """What fits in one entry, at least one."""
    batch = [waiting.popleft()]
    size = batch[0].size
    while waiting and size + waiting[0].size <= EVENT_BYTES:
        batch.append(waiting.popleft())
        size += batch[-1].size
    return batch


def _too_many_races(thread: str) -> ApplianceError:
    return ApplianceError("overloaded", f"too many others write to the thread {thread} at once", hint="try again")
