"""From an accepted upload to searchable text: parse in a worker process, store, index, publish.

Accepted means durable: the blob and the catalogue row exist before the caller hears of it. The queue here is only a copy of the
catalogue's ``queued`` rows, read again at start, so kill -9 at any step repeats a document and never half-shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from appliance.contracts.retrieval.v1.documents import DocumentError, DocumentStatus, Progress
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.retrieval import metrics
from services.retrieval.domain import IndexEntry, PendingVersion, PreparedDocument
from services.retrieval.free_space import FreeSpace
from services.retrieval.index_keeper import IndexKeeper
from services.retrieval.parsing.failures import FAILURE_CODES
from services.retrieval.ports import BlobStore
from services.retrieval.presence import Presence
from services.retrieval.progress import ProgressBoard
from services.retrieval.sqlalchemy_catalogue import SqlCatalogue

log = get_logger(__name__)
_Result = TypeVar("_Result")
QUEUE_LIMIT: Final = 100_000
_RETRY_SECONDS: Final = 2.0
_LONGEST_RETRY_SECONDS: Final = 60.0
_PUBLISH_DOCUMENTS: Final = 128


class Preparer(Protocol):
    """Turns a file into text and chunks, somewhere safe."""

    async def prepare(self, path: Path, name: str, on_progress: Callable[[int, int | None], None]) -> PreparedDocument:
        """Parse, chunk and analyse ``path``; ``on_progress(pages_done, pages)``. Raises ApplianceError ``document_*``."""
        ...


@dataclass(frozen=True, slots=True)
class _Stored:
    """A version whose chunks are in the catalogue and wait for the index."""

    pending: PendingVersion
    entries: Sequence[IndexEntry]


class Ingestor:
    """Works off the queue with ``workers`` documents at a time."""

    def __init__(
        self, catalogue: SqlCatalogue, blobs: BlobStore, preparer: Preparer, keeper: IndexKeeper,
        presence: Presence, board: ProgressBoard, *, workers: int, blob_lock: asyncio.Lock,
        record: Callable[[str, str, str, dict[str, object]], Awaitable[None]], free_space: FreeSpace,
    ) -> None:  # fmt: skip
        self._catalogue, self._blobs, self._preparer, self._keeper = catalogue, blobs, preparer, keeper
        self._presence, self._board, self._workers, self._blob_lock = presence, board, workers, blob_lock
        self._record, self._free_space = record, free_space
        self._attempts: dict[PendingVersion, int] = {}
        self._queue: asyncio.Queue[PendingVersion] = asyncio.Queue()
        self._stored: asyncio.Queue[_Stored] = asyncio.Queue(_PUBLISH_DOCUMENTS)

    @property
    def depth(self) -> int:
        """Documents that wait."""
        return self._queue.qsize()

    def enqueue(self, pending: PendingVersion) -> None:
        """Take an accepted version; the caller has checked ``depth`` against ``QUEUE_LIMIT``."""
        self._board.post(pending.document_id, Progress("queued", 0, None, 0, 0))
        self._queue.put_nowait(pending)

    async def run(self) -> None:
        """Work for ever; cancel to stop."""
        for pending in await _until_done(self._catalogue.pending):
            self.enqueue(pending)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._prepare_documents())
            group.create_task(self._publish_documents())

    async def _prepare_documents(self) -> None:
        while True:
            pending = await self._queue.get()
            async with self._refusing([pending]):
                stored = await self._prepared(pending)
                if stored is None:
                    self._board.settle(pending.document_id)
                else:
                    await self._stored.put(stored)

    async def _prepared(self, pending: PendingVersion) -> _Stored | None:
        if not await self._catalogue.is_wanted(pending):
            self._attempts.pop(pending, None)
            return None
        self._free_space.check()

        def on_progress(done: int, pages: int | None) -> None:
            self._post(pending, "parsing", done, pages)

        with metrics.ingest_seconds.labels("parse").time():
            prepared = await self._preparer.prepare(self._blobs.path(pending.sha256), pending.name, on_progress)
        self._post(pending, "indexing", prepared.page_count or 0, prepared.page_count)
        with metrics.ingest_seconds.labels("store").time():
            entries = await self._catalogue.store(pending, prepared)
        return None if entries is None else _Stored(pending, entries)

    async def _publish_documents(self) -> None:
        """Everything that is stored and waits becomes searchable in one index commit and one transaction (group commit)."""
        while True:
            batch = [await self._stored.get()]
            while len(batch) < _PUBLISH_DOCUMENTS and not self._stored.empty():
                batch.append(self._stored.get_nowait())
            async with self._refusing([item.pending for item in batch]):
                published, replaced = await self._publish(batch)
                await self._published(batch, published, replaced)

    async def _publish(self, batch: Sequence[_Stored]) -> tuple[list[PendingVersion], list[str]]:
        with metrics.ingest_seconds.labels("publish").time():
            await self._keeper.add_text([entry for item in batch for entry in item.entries])
            self._presence.expect({entry.space for item in batch for entry in item.entries})
            return await self._catalogue.publish([item.pending for item in batch])

    async def _published(self, batch: Sequence[_Stored], published: Sequence[PendingVersion], replaced: list[str]) -> None:
        """What follows publication. It raises nothing: these documents are live, so nothing may call them failed."""
        self._keeper.wake_embedder()
        await _until_done(self._presence.refresh)
        metrics.documents_total.labels("ready").inc(len(published))
        if replaced:
            await self._attempt(self._keeper.collect_garbage())
            await self._attempt(self.drop_blobs(replaced))
        chunks = {item.pending: len(item.entries) for item in batch}
        await asyncio.gather(*(self._attempt(self._note("document.indexed", item, {"chunks": chunks[item]})) for item in published))
        for item in batch:
            self._attempts.pop(item.pending, None)
            self._board.settle(item.pending.document_id)

    async def _attempt(self, work: Coroutine[object, object, None]) -> None:
        """Do what can be done later too (garbage, unused blobs) or not at all (a record in a log that cannot be written)."""
        try:
            await work
        except Exception:
            log.exception("ingest_follow_up_failed")

    @asynccontextmanager
    async def _refusing(self, batch: Sequence[PendingVersion]) -> AsyncIterator[None]:
        """Whatever happens to these documents must not stop the others."""
        try:
            yield
        except ApplianceError as exc:
            for pending in batch:
                await self._failed(pending, exc)
        except Exception:  # a disk, an index, a bug: ours, not the document's
            log.exception("ingest_crashed", document_ids=[pending.document_id for pending in batch])
            for pending in batch:
                self._postpone(pending, "internal")

    async def drop_blobs(self, digests: list[str]) -> None:
        """Forget bytes that no version uses any more."""
        async with self._blob_lock:
            await self.drop_blobs_locked(digests)

    async def drop_blobs_locked(self, digests: Sequence[str]) -> None:
        """The same for who holds the lock."""
        for digest in await self._catalogue.unreferenced(digests):
            await self._blobs.remove(digest)

    async def sweep_blobs(self) -> None:
        """Remove blobs that no version uses: a crash came between a row and its bytes. Run once at start."""
        try:
            async with self._blob_lock:
                used = await self._catalogue.digests()
                unused = [digest for digest in await self._blobs.digests() if digest not in used]
                for digest in unused:
                    await self._blobs.remove(digest)
        except OSError:
            log.exception("blob_sweep_failed")
        else:
            if unused:
                log.info("blobs_swept", blobs=len(unused))

    async def _failed(self, pending: PendingVersion, error: ApplianceError) -> None:
        """Refuse what the document itself is to blame for; postpone everything else, also when the refusal cannot be recorded."""
        if error.code not in FAILURE_CODES:
            self._postpone(pending, error.code)
            return
        try:
            fallback = await self._catalogue.fail(pending, DocumentError(error.code, error.message, error.hint))
        except Exception:
            log.exception("refusal_not_recorded", document_id=pending.document_id)
            self._postpone(pending, "internal")
            return
        metrics.documents_total.labels("failed").inc()
        log.info("document_refused", document_id=pending.document_id, code=error.code)
        self._attempts.pop(pending, None)
        self._board.settle(pending.document_id)
        if fallback is not None:
            self.enqueue(fallback)
        await self._attempt(self._note("document.failed", pending, {"code": error.code}))

    def _postpone(self, pending: PendingVersion, code: str) -> None:
        """Try again later, less and less often; the row in the catalogue stays queued meanwhile."""
        attempts = self._attempts[pending] = self._attempts.get(pending, 0) + 1
        delay = min(_RETRY_SECONDS * 2 ** min(attempts - 1, 10), _LONGEST_RETRY_SECONDS)
        log.warning("ingest_postponed", document_id=pending.document_id, code=code, attempts=attempts, seconds=delay)
        asyncio.get_running_loop().call_later(delay, self.enqueue, pending)

    async def _note(self, action: str, pending: PendingVersion, detail: dict[str, object]) -> None:
        await self._record(action, pending.document_id, pending.space, {"version": pending.version, **detail})

    def _post(self, pending: PendingVersion, status: DocumentStatus, done: int, pages: int | None) -> None:
        self._board.post(pending.document_id, Progress(status, done, pages, 0, 0))


async def _until_done(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Repeat what must succeed before anything else makes sense."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("ingest_waits")
            await asyncio.sleep(_RETRY_SECONDS)
