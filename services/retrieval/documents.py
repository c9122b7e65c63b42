"""The catalogue as the outside sees it: submit, list, read, watch, delete, with access checked at every step.

A foreign document and an absent one raise the same ``not_found``; who may read but not write gets ``forbidden``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from appliance.contracts.retrieval.v1.documents import (
    Document,
    DocumentPage,
    DocumentQuery,
    DocumentText,
    Original,
    PageSpan,
    Progress,
    Submitted,
    Upload,
)
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found
from services.retrieval.free_space import FreeSpace
from services.retrieval.index_keeper import IndexKeeper
from services.retrieval.ingest import QUEUE_LIMIT, Ingestor
from services.retrieval.parsing.detect import detect
from services.retrieval.ports import BlobStore
from services.retrieval.presence import Presence
from services.retrieval.progress import ProgressBoard
from services.retrieval.sqlalchemy_catalogue import SqlCatalogue

_UNSETTLED = frozenset({"queued", "parsing", "indexing"})


class DocumentService:
    """Implements the ``Documents`` and ``DocumentContent`` contracts."""

    def __init__(
        self, catalogue: SqlCatalogue, blobs: BlobStore, ingestor: Ingestor, keeper: IndexKeeper,
        presence: Presence, board: ProgressBoard, blob_lock: asyncio.Lock,
        free_space: FreeSpace, space_exists: Callable[[str], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self._catalogue, self._blobs, self._ingestor, self._keeper = catalogue, blobs, ingestor, keeper
        self._presence, self._board, self._blob_lock = presence, board, blob_lock
        self._free_space, self._space_exists = free_space, space_exists

    async def submit(self, upload: Upload, space: str, principal: Principal) -> Submitted:
        """See the contract."""
        _check(principal, space, SpaceRole.EDITOR)
        if upload.size_bytes == 0:
            raise ApplianceError("document_empty", f"{upload.name} is empty", hint="upload a file with content")
        if self._ingestor.depth >= QUEUE_LIMIT:
            raise ApplianceError("overloaded", "too many documents are waiting", hint="try again when some are done")
        self._free_space.check()
        detected = await asyncio.to_thread(detect, upload.path, upload.name)
        async with self._blob_lock:  # a blob must not be swept between storing it and writing the row that uses it
            await self._blobs.put(upload.path, upload.sha256)
            if not await self._space_exists(space):  # the principal may be older than the removal; a purge waits for this lock
                await self._ingestor.drop_blobs_locked([upload.sha256])
                raise not_found("space")
            pending, outcome = await self._catalogue.submit(space, upload.name, upload.sha256, upload.size_bytes, detected.media_type)
        if outcome != "unchanged":
            self._ingestor.enqueue(pending)
        document = await self._catalogue.get(pending.document_id)
        if document is None:
            raise not_found("document")
        return Submitted(document, outcome)

    async def list(self, query: DocumentQuery, principal: Principal) -> DocumentPage:
        """See the contract."""
        if query.space is not None:
            _check(principal, query.space, SpaceRole.READER)
        readable = principal.readable(None if query.space is None else (query.space,))
        page = await self._catalogue.list(query, readable)
        return replace(page, documents=tuple(self._current(document) for document in page.documents))

    async def get(self, document_id: str, principal: Principal) -> Document:
        """See the contract."""
        document = await self._catalogue.get(document_id)
        if document is None or not principal.may(document.space, SpaceRole.READER):
            raise not_found("document")
        return self._current(document)

    async def delete(self, document_id: str, principal: Principal) -> None:
        """See the contract."""
        document = await self.get(document_id, principal)
        _check(principal, document.space, SpaceRole.EDITOR)
        await self._remove([document_id])

    async def clear(self, space: str, principal: Principal) -> int:
        """See the contract."""
        _check(principal, space, SpaceRole.OWNER)
        removed = 0
        while page := (await self._catalogue.list(DocumentQuery(limit=500), frozenset({space}))).documents:
            await self._remove([document.id for document in page])
            removed += len(page)
        return removed

    async def purge(self, space: str) -> int:
        """Delete every document of a space that is no more; how many there were. For the box itself: nobody's rights are checked.

        After this returns nothing can come in: ``submit`` asks under the same lock whether the space exists.
        """
        async with self._blob_lock:
            document_ids = await self._catalogue.ids_in(space)
            digests = await self._forget(document_ids)
        if document_ids:
            await self._settle(digests)
        return len(document_ids)

    async def _remove(self, document_ids: Sequence[str]) -> None:
        await self._settle(await self._forget(document_ids))

    async def _forget(self, document_ids: Sequence[str]) -> set[str]:
        digests: set[str] = set()
        for document_id in document_ids:
            digests.update(await self._catalogue.delete(document_id))
            self._board.settle(document_id)
        return digests

    async def _settle(self, digests: set[str]) -> None:
        """Let the indexes and the blobs follow the catalogue."""
        await self._presence.refresh()
        await self._keeper.collect_garbage()
        await self._ingestor.drop_blobs(sorted(digests))

    async def counts(self, spaces: Sequence[str]) -> Mapping[str, int]:
        """See the contract."""
        return await self._catalogue.counts(spaces)

    async def text(self, document_id: str, principal: Principal, start: int = 0, end: int | None = None) -> DocumentText:
        """See the contract."""
        document = await self.get(document_id, principal)
        found = await self._catalogue.text(document_id)
        if found is None:
            raise ApplianceError("conflict", "the document has no text yet", hint="wait until its status is ready, or see its error")
        whole, pages = found
        stop = len(whole) if end is None else max(0, min(end, len(whole)))
        begin = max(0, min(start, stop))
        return DocumentText(document, whole[begin:stop], begin, stop, len(whole), _overlapping(pages, begin, stop))

    async def original(self, document_id: str, principal: Principal) -> Original:
        """See the contract."""
        document = await self.get(document_id, principal)
        path: Path = self._blobs.path(document.sha256)
        if not await asyncio.to_thread(path.exists):
            raise not_found("document")
        return Original(document, path)

    async def progress(self, document_id: str, principal: Principal) -> AsyncIterator[Progress]:
        """See the contract."""
        await self.get(document_id, principal)
        last: Progress | None = None
        async with aclosing(self._board.changes(document_id)) as changes:
            async for _ in changes:
                document = await self._catalogue.get(document_id)
                if document is None or not principal.may(document.space, SpaceRole.READER):
                    return
                current = self._progress(document)
                if current != last:
                    last = current
                    yield current
                if current.status == "failed" or (current.status == "ready" and current.embedded_chunks >= current.chunks):
                    return

    def _progress(self, document: Document) -> Progress:
        posted = self._board.latest(document.id)
        if posted is not None:
            return posted
        done = document.pages or 0
        return Progress(document.status, done, document.pages, document.chunks, document.embedded_chunks)

    def _current(self, document: Document) -> Document:
        posted = self._board.latest(document.id)
        if posted is None or document.status not in _UNSETTLED:
            return document
        return replace(document, status=posted.status)


def _check(principal: Principal, space: str, role: SpaceRole) -> None:
    if not principal.may(space, SpaceRole.READER):
        raise not_found("space")
    if not principal.may(space, role):
        raise ApplianceError("forbidden", f"your role in this space is below {role.name.lower()}", hint="ask an owner of the space")


def _overlapping(pages: Sequence[PageSpan], start: int, end: int) -> tuple[PageSpan, ...]:
    return tuple(page for page in pages if page.start < end and page.end > start)
