"""The graphs in Ladybug, one database for each space, in a process of their own.

A query runs in the database of the one space it is asked for, which holds nothing of any other: what a caller may see does not depend on what the
query says. Folders are named by the digest of the space's name.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.kit.errors import OUTCOMES, ApplianceError
from appliance.kit.logging import get_logger
from services.knowledge.applied_mark import read_mark, write_mark
from services.knowledge.domain import Changes, Record
from services.knowledge.graph_process import GraphGoneError, GraphProcess
from services.knowledge.graph_statements import SCHEMA_VERSION
from services.knowledge.graph_wire import TEXT_IN_GRAPH, GraphEntry, Reply, Request
from services.knowledge.settings import KnowledgeSettings

log = get_logger(__name__)
_GRACE_SECONDS: Final = 0.5
_WATCH_SECONDS: Final = 0.05
_WRITE_SECONDS: Final = 120.0
_NEIGHBOUR_SECONDS: Final = 2.0
_TRIES: Final = 3


class LadybugGraph:
    """Implements ``Graph``. Use it on one event loop; ``async with`` it."""

    def __init__(self, folder: Path, settings: KnowledgeSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._process: GraphProcess | None = None
        self._starting = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.queries)
        self._queued = 0
        self._used_at = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the graphs' process while there is one; for tests and metrics."""
        return self._process.pid if self._process is not None and self._process.alive else None

    @property
    def resident_bytes(self) -> int:
        """Memory that the graphs' process holds; 0 without one."""
        return self._process.resident_bytes() if self._process is not None and self._process.alive else 0

    def folder(self, space: str) -> Path:
        """Where the graph of a space lies."""
        return self._folder / f"graph-{SCHEMA_VERSION}-{hashlib.sha256(space.encode()).hexdigest()[:32]}"

    def _mark(self, space: str) -> Path:
        return self.folder(space).with_suffix(".applied")

    async def version(self, space: str) -> int:
        """See the port."""
        return read_mark(self._mark(space))

    async def apply(self, space: str, changes: Changes) -> None:
        """See the port."""
        if any(removal.row_id is None for removal in changes.removals):
            await self.reset(space)
        removed = [removal.entry_id for removal in changes.removals if removal.entry_id is not None]
        if removed or changes.records:
            entries = [_graph_entry(record) for record in changes.records]
            await self._told(Request(0, "apply", space, str(self.folder(space)), removed=removed, entries=entries), _WRITE_SECONDS)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_mark(self._mark(space), changes.upto)

    async def count(self, space: str) -> int:
        """See the port."""
        if not self.folder(space).exists():
            return 0
        return msgspec.json.decode(await self._told(Request(0, "count", space, str(self.folder(space))), _WRITE_SECONDS), type=int)

    async def reset(self, space: str) -> None:
        """See the port."""
        self._mark(space).unlink(missing_ok=True)
        if self.folder(space).exists():
            await self._told(Request(0, "reset", space, str(self.folder(space))), _WRITE_SECONDS)

    async def neighbours(self, space: str, entry_ids: Sequence[str], limit: int) -> dict[str, list[str]]:
        """See the port."""
        order = Request(0, "neighbours", space, str(self.folder(space)), ids=list(entry_ids), limit=limit, seconds=_NEIGHBOUR_SECONDS)
        return msgspec.json.decode(await self._told(order, 4 * _NEIGHBOUR_SECONDS), type=dict[str, list[str]])

    async def query(self, space: str, cypher: str, parameters: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        """See the port."""
        if self._queued >= self._settings.queries + self._settings.queries_waiting:
            raise ApplianceError("overloaded", "too many queries are waiting", hint="try again in a few seconds")
        order = Request(
            0, "query", space, str(self.folder(space)), cypher=cypher, parameters=parameters, limit=limit, seconds=self._settings.query_seconds,
            result_bytes=self._settings.query_result_bytes,
        )  # fmt: skip
        self._queued += 1
        try:
            async with self._slots:
                value = await self._watched(order)
        finally:
            self._queued -= 1
        return msgspec.json.decode(value, type=list[dict[str, Any]])

    async def _watched(self, order: Request) -> msgspec.Raw:
        """Run a query under both watches. One that died for another's fault is run once more."""
        for _ in range(_TRIES):
            process = await self._running()
            try:
                reply = await self._watch(process, process.send(order))
            except GraphGoneError:
                continue
            return _value(reply)
        raise _unavailable()

    async def _watch(self, process: GraphProcess, future: asyncio.Future[Reply]) -> Reply:
        ends_at = time.monotonic() + self._settings.query_seconds + _GRACE_SECONDS
        while not future.done():
            await asyncio.wait([future], timeout=_WATCH_SECONDS)
            if future.done():
                break
            if process.resident_bytes() > self._settings.graph_process_bytes:
                log.warning("graph_process_killed", why="memory", bytes=process.resident_bytes())
                await self._drop(process)
                raise ApplianceError("query_refused", "the query needs more memory than it may use", hint="match less, or return less")
            if time.monotonic() > ends_at:
                log.warning("graph_process_killed", why="time")
                await self._drop(process)
                raise ApplianceError("query_timeout", "the query took longer than it may", hint="match less, or begin at one node")
        return future.result()

    async def _told(self, order: Request, seconds: float) -> msgspec.Raw:
        """Have something done that may be repeated: it is, when the process dies meanwhile."""
        for _ in range(_TRIES):
            process = await self._running()
            try:
                async with asyncio.timeout(seconds):
                    reply = await process.send(order)
            except GraphGoneError:
                continue
            except TimeoutError:
                await self._drop(process)
                continue
            return _value(reply)
        raise _unavailable()

    async def _running(self) -> GraphProcess:
        async with self._starting:
            if self._closed:
                raise _unavailable()
            if self._process is None or not self._process.alive:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._process = await GraphProcess.start(self._settings.graph_pool_bytes, self._settings.open_graphs)
            self._used_at = time.monotonic()
            self._watch_idle()
            return self._process

    def _watch_idle(self) -> None:
        if self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(self._settings.graph_idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self._idle = None
        process = self._process
        if process is None or not process.alive:
            return
        if process.busy or self._starting.locked() or time.monotonic() - self._used_at < self._settings.graph_idle_seconds:
            self._watch_idle()
            return
        self._process = None
        self._end_later(process)

    def _end_later(self, process: GraphProcess) -> None:
        async def end_before_another_starts() -> None:
            async with self._starting:
                await process.end()

        task = asyncio.create_task(end_before_another_starts())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _drop(self, process: GraphProcess) -> None:
        """Kill it; the next caller starts another, which must find the databases unlocked."""
        process.kill()
        async with self._starting:
            await process.end()
            if self._process is process:
                self._process = None

    async def aclose(self) -> None:
        """End the process."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        async with self._starting:
            if self._process is not None:
                await self._process.end()
                self._process = None


def _graph_entry(record: Record) -> GraphEntry:
    entry = record.entry
    metadata = msgspec.json.encode(entry.metadata).decode()
    return GraphEntry(
        entry.id, entry.type.value, entry.content[:TEXT_IN_GRAPH], metadata, record.key, entry.created_at, list(entry.related_entries), record.facts
    )


def _value(reply: Reply) -> msgspec.Raw:
    if not reply.code:
        return reply.value
    if reply.code in OUTCOMES and reply.code != "internal":
        raise ApplianceError(reply.code, reply.message, hint="see docs/api.md for the graph's nodes and relations")
    log.error("graph_engine_failed", cause=reply.message)
    raise ApplianceError("unavailable", "the graph cannot answer", hint="try again; if it stays, run: appliance doctor")


def _unavailable() -> ApplianceError:
    return ApplianceError("unavailable", "the graph does not answer now", hint="try again")
