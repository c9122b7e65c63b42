"""From an accepted upload to searchable text: parse in a worker process, store, index, publish.

Accepted means durable: the blob and the catalogue row exist before the caller hears of it. The queue here is only a copy of the
catalogue's ``queued`` rows, read again at start, so kill -9 at any step repeats a document and never half-shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from appliance.contracts.retrieval.v1.documents import DocumentError, DocumentStatus, Progress
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.retrieval import metrics
from services.retrieval.domain import PendingVersion, PreparedDocument
from services.retrieval.index_keeper import IndexKeeper
from services.retrieval.ports import BlobStore
from services.retrieval.presence import Presence
from services.retrieval.progress import ProgressBoard
from services.retrieval.sqlalchemy_catalogue import SqlCatalogue

log = get_logger(__name__)
QUEUE_LIMIT: Final = 100_000
_RETRY_SECONDS: Final = 2.0


class Preparer(Protocol):
    """Turns a file into text and chunks, somewhere safe."""

    async def prepare(self, path: Path, name: str, on_progress: Callable[[int, int | None], None]) -> PreparedDocument:
        """Parse, chunk and analyse ``path``; ``on_progress(pages_done, pages)``. Raises ApplianceError ``document_*``."""
        ...


class Ingestor:
    """Works off the queue with ``workers`` documents at a time."""

    def __init__(
        self, catalogue: SqlCatalogue, blobs: BlobStore, preparer: Preparer, keeper: IndexKeeper,
        presence: Presence, board: ProgressBoard, *, workers: int, blob_lock: asyncio.Lock,
        record: Callable[[str, str, str, dict[str, object]], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._catalogue, self._blobs, self._preparer, self._keeper = catalogue, blobs, preparer, keeper
        self._presence, self._board, self._workers, self._blob_lock = presence, board, workers, blob_lock
        self._record = record
        self._queue: asyncio.Queue[PendingVersion] = asyncio.Queue()

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
        for pending in await self._catalogue.pending():
            self.enqueue(pending)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            pending = await self._queue.get()
            try:
                await self._ingest(pending)
            except ApplianceError as exc:
                await self._failed(pending, exc)
            except Exception as exc:  # noqa: BLE001 - one document must not stop the others
                log.exception("ingest_crashed", document_id=pending.document_id)
                await self._failed(pending, ApplianceError("internal", "the document could not be processed", hint="see the log"), exc)
            finally:
                self._board.settle(pending.document_id)

    async def _ingest(self, pending: PendingVersion) -> None:
        def on_progress(done: int, pages: int | None) -> None:
            self._post(pending, "parsing", done, pages)

        with metrics.ingest_seconds.labels("parse").time():
            prepared = await self._preparer.prepare(self._blobs.path(pending.sha256), pending.name, on_progress)
        self._post(pending, "indexing", prepared.page_count or 0, prepared.page_count)
        with metrics.ingest_seconds.labels("index").time():
            entries = await self._catalogue.store(pending, prepared)
            if entries is None:
                return
            await self._keeper.add_text(entries)
        old = await self._catalogue.superseded(pending.document_id)
        if not await self._catalogue.publish(pending):
            return
        await self._presence.refresh()
        self._keeper.wake_embedder()
        metrics.documents_total.labels("ready").inc()
        if old:
            await self._keeper.collect_garbage()
            await self.drop_blobs(old)
        await self._record("document.indexed", pending.document_id, pending.space, {"version": pending.version, "chunks": len(entries)})

    async def drop_blobs(self, digests: list[str]) -> None:
        """Forget bytes that no version uses any more."""
        async with self._blob_lock:
            for digest in await self._catalogue.unreferenced(digests):
                await self._blobs.remove(digest)

    async def _failed(self, pending: PendingVersion, error: ApplianceError, cause: Exception | None = None) -> None:
        if error.code in {"disk_full", "unavailable", "cancelled"}:  # ours, not the document's: it stays queued
            log.warning("ingest_postponed", document_id=pending.document_id, code=error.code)
            await asyncio.sleep(_RETRY_SECONDS)
            self.enqueue(pending)
            return
        metrics.documents_total.labels("failed").inc()
        log.info("document_refused", document_id=pending.document_id, code=error.code, cause=repr(cause) if cause else None)
        await self._catalogue.fail(pending, DocumentError(error.code, error.message, error.hint))
        await self._record("document.failed", pending.document_id, pending.space, {"version": pending.version, "code": error.code})

    def _post(self, pending: PendingVersion, status: DocumentStatus, done: int, pages: int | None) -> None:
        self._board.post(pending.document_id, Progress(status, done, pages, 0, 0))
