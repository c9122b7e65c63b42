"""The document catalogue in SQL: which documents exist, in which version search sees them, what their text is.

Invariants:
- Search sees a chunk only if its version is its document's ``live_version``; ``publish`` moves that number in one transaction.
- A chunk row is deleted only in the same transaction that writes its id to ``garbage``; ids are never used twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.contracts.retrieval.v1.documents import (
    Document,
    DocumentError,
    DocumentPage,
    DocumentQuery,
    DocumentWarning,
    PageSpan,
    SubmitOutcome,
)
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import reading, writing
from appliance.language.terms import decode_passage_terms
from services.retrieval.domain import IndexEntry, PendingVersion, PreparedDocument
from services.retrieval.tables import chunks, documents, garbage, versions

_INSERT_ROWS = 500
QUEUED, READY, FAILED = "queued", "ready", "failed"
_WANTED = (  # the version to work on: a refused replacement must not take an older accepted version with it
    sa.select(sa.func.max(versions.c.version))
    .where(versions.c.document_id == documents.c.id, versions.c.version > documents.c.live_version, sa.not_(versions.c.failed))
    .correlate(documents)
    .scalar_subquery()
)


class SqlCatalogue:
    """Documents and versions. Access is the caller's business except where a method takes ``spaces``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def submit(self, space: str, name: str, sha256: str, size_bytes: int, media_type: str) -> tuple[PendingVersion, SubmitOutcome]:
        """Record an upload whose blob is already stored. Durable when it returns."""
        now = time.time()
        async with writing(self._engine) as connection:
            row = (await connection.execute(sa.select(documents).where(documents.c.space == space, documents.c.name == name))).first()
            if row is None:
                document_id, version, outcome = f"doc_{uuid.uuid4().hex}", 1, "created"
                await connection.execute(
                    sa.insert(documents).values(
                        id=document_id, space=space, name=name, status=QUEUED, live_version=0, newest_version=1, created_at=now, updated_at=now
                    )
                )
            else:
                newest = await _version(connection, row.id, row.newest_version)
                if newest is not None and newest.sha256 == sha256 and not newest.failed:
                    return PendingVersion(row.id, row.newest_version, space, name, sha256, media_type), "unchanged"
                document_id, version, outcome = row.id, row.newest_version + 1, "replaced"
                await connection.execute(
                    sa.update(documents).where(documents.c.id == document_id).values(status=QUEUED, newest_version=version, error=None, updated_at=now)
                )
            await connection.execute(
                sa.insert(versions).values(document_id=document_id, version=version, sha256=sha256, size_bytes=size_bytes, media_type=media_type)
            )
        return PendingVersion(document_id, version, space, name, sha256, media_type), outcome  # type: ignore[return-value]  # literal

    async def pending(self) -> list[PendingVersion]:
        """Versions that wait, oldest first."""
        statement = _pending().where(documents.c.status == QUEUED).order_by(documents.c.updated_at, documents.c.id)
        async with reading(self._engine) as connection:
            return [PendingVersion(*row) for row in (await connection.execute(statement)).all()]

    async def is_wanted(self, pending: PendingVersion) -> bool:
        """Whether this version should still be worked on: not superseded, published, refused or deleted."""
        async with reading(self._engine) as connection:
            return await _is_wanted(connection, pending)

    async def store(self, pending: PendingVersion, prepared: PreparedDocument) -> list[IndexEntry] | None:
        """Store text and chunks of a version that is not live yet; None when it was superseded or deleted meanwhile."""
        values = await asyncio.to_thread(_version_values, prepared)  # compresses up to 20 MB of text
        async with writing(self._engine) as connection:
            if not await _is_wanted(connection, pending):
                return None
            await _discard_chunks(connection, sa.and_(chunks.c.document_id == pending.document_id, chunks.c.version == pending.version))
            await connection.execute(
                sa.update(versions)
                .where(versions.c.document_id == pending.document_id, versions.c.version == pending.version)
                .values(**values)
            )
            rows = [
                {
                    "document_id": pending.document_id,
                    "version": pending.version,
                    "ordinal": draft.ordinal,
                    "page": draft.page,
                    "start": draft.start,
                    "end": draft.end,
                    "heading_path": list(draft.heading_path),
                    "text": draft.text,
                    "context": draft.context,
                    "terms": draft.terms,
                    "embedded": False,
                }
                for draft in prepared.chunks
            ]
            for begin in range(0, len(rows), _INSERT_ROWS):
                await connection.execute(sa.insert(chunks), rows[begin : begin + _INSERT_ROWS])
            stored = await connection.execute(
                sa.select(chunks.c.id, chunks.c.terms)
                .where(chunks.c.document_id == pending.document_id, chunks.c.version == pending.version)
                .order_by(chunks.c.ordinal)
            )
            return [
                IndexEntry(row.id, pending.space, pending.document_id, prepared.media_type, prepared.language, decode_passage_terms(row.terms).joined) for row in stored.all()
            ]

    async def publish(self, finished: Sequence[PendingVersion]) -> tuple[list[PendingVersion], list[str]]:
        """Make versions the ones that search sees, all in one transaction.

        Returns:
            Those that were published (the others were superseded or deleted meanwhile), and digests of the versions they replaced.
        """
        published: list[PendingVersion] = []
        replaced: list[str] = []
        async with writing(self._engine) as connection:
            for pending in finished:
                done = await connection.execute(
                    sa.update(documents)
                    .where(documents.c.id == pending.document_id, sa.literal(pending.version) == _WANTED)
                    .values(
                        live_version=pending.version,
                        status=READY,
                        error=sa.case((documents.c.newest_version > pending.version, documents.c.error), else_=sa.null()),
                        updated_at=time.time(),
                    )
                )
                if done.rowcount == 0:
                    continue
                published.append(pending)
                if pending.version > 1:
                    replaced += await _drop_older(connection, pending)
        return published, replaced

    async def fail(self, pending: PendingVersion, error: DocumentError) -> PendingVersion | None:
        """Record why a version cannot be read; a version that is live stays live.

        Returns:
            The older accepted version to work on instead, if there is one. The error of the newest version stays for people to see.
        """
        values = {"code": error.code, "message": error.message, "hint": error.hint}
        async with writing(self._engine) as connection:
            row = (await connection.execute(sa.select(documents).where(documents.c.id == pending.document_id))).first()
            if row is None or row.live_version >= pending.version:
                return None
            was_wanted = await _is_wanted(connection, pending)
            this = sa.and_(versions.c.document_id == pending.document_id, versions.c.version == pending.version)
            await connection.execute(sa.update(versions).where(this).values(failed=True))
            if not was_wanted:
                return None
            fallback = (await connection.execute(_pending().where(documents.c.id == pending.document_id))).first()
            await connection.execute(
                sa.update(documents)
                .where(documents.c.id == pending.document_id)
                .values(
                    status=FAILED if fallback is None else QUEUED,
                    error=values if pending.version == row.newest_version else row.error,
                    updated_at=time.time(),
                )
            )
        return None if fallback is None else PendingVersion(*fallback)

    async def delete(self, document_id: str) -> list[str]:
        """Remove a document, its versions and chunks; returns the digests it used."""
        async with writing(self._engine) as connection:
            digests = (await connection.execute(sa.select(versions.c.sha256).where(versions.c.document_id == document_id))).scalars().all()
            await _discard_chunks(connection, chunks.c.document_id == document_id)
            await connection.execute(sa.delete(versions).where(versions.c.document_id == document_id))
            await connection.execute(sa.delete(documents).where(documents.c.id == document_id))
        return sorted(set(digests))

    async def ids_in(self, space: str) -> list[str]:
        """Ids of all documents of a space."""
        async with reading(self._engine) as connection:
            return list((await connection.execute(sa.select(documents.c.id).where(documents.c.space == space))).scalars())

    async def digests(self) -> set[str]:
        """Digests of all blobs that some version uses."""
        async with reading(self._engine) as connection:
            return set((await connection.execute(sa.select(versions.c.sha256).distinct())).scalars())

    async def unreferenced(self, digests: Sequence[str]) -> list[str]:
        """Those of ``digests`` that no version uses."""
        async with reading(self._engine) as connection:
            used = set((await connection.execute(sa.select(versions.c.sha256).where(versions.c.sha256.in_(digests)))).scalars())
        return [digest for digest in digests if digest not in used]

    async def live_counts(self) -> Mapping[str, int]:
        """Searchable documents by space."""
        statement = sa.select(documents.c.space, sa.func.count()).where(documents.c.live_version > 0).group_by(documents.c.space)
        async with reading(self._engine) as connection:
            return {str(space): int(count) for space, count in (await connection.execute(statement)).all()}

    async def get(self, document_id: str) -> Document | None:
        """One document, or None."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(_listing().where(documents.c.id == document_id))).first()
        return None if row is None else _document(row)

    async def list(self, query: DocumentQuery, spaces: frozenset[str]) -> DocumentPage:
        """One page among ``spaces``, newest first."""
        statement = _listing().where(documents.c.space.in_(sorted(spaces)))
        if query.status is not None:
            statement = statement.where(documents.c.status == query.status)
        if query.name is not None:
            statement = statement.where(documents.c.name == query.name)
        async with reading(self._engine) as connection:
            if query.after is not None:
                after = (
                    await connection.execute(
                        sa.select(documents.c.created_at, documents.c.id).where(
                            documents.c.id == query.after, documents.c.space.in_(sorted(spaces))
                        )
                    )
                ).first()
                if after is None:
                    raise ApplianceError("invalid_request", "'after' names no document", hint="use the id of the last document of the page before")
                statement = statement.where(sa.tuple_(documents.c.created_at, documents.c.id) < sa.tuple_(*(sa.literal(v) for v in after)))
            statement = statement.order_by(documents.c.created_at.desc(), documents.c.id.desc()).limit(query.limit + 1)
            rows = (await connection.execute(statement)).all()
        return DocumentPage(tuple(_document(row) for row in rows[: query.limit]), len(rows) > query.limit)

    async def counts(self, spaces: Sequence[str]) -> Mapping[str, int]:
        """Documents by space."""
        statement = sa.select(documents.c.space, sa.func.count()).where(documents.c.space.in_(list(spaces))).group_by(documents.c.space)
        async with reading(self._engine) as connection:
            return {str(space): int(count) for space, count in (await connection.execute(statement)).all()}

    async def text(self, document_id: str) -> tuple[str, tuple[PageSpan, ...]] | None:
        """Markdown text and page spans of the live version; None when nothing is live."""
        live = sa.and_(versions.c.document_id == documents.c.id, versions.c.version == documents.c.live_version)
        statement = sa.select(versions.c.text, versions.c.pages).join(documents, live).where(documents.c.id == document_id)
        async with reading(self._engine) as connection:
            row = (await connection.execute(statement)).first()
        if row is None or row.text is None:
            return None
        text = await asyncio.to_thread(lambda: zlib.decompress(row.text).decode())
        return text, tuple(PageSpan(*page) for page in row.pages or ())


def _pending() -> sa.Select[str, int, str, str, str, str]:
    """Documents joined with the version that is to be worked on; none for those where nothing is."""
    wanted = sa.and_(versions.c.document_id == documents.c.id, versions.c.version == _WANTED)
    columns = (documents.c.id, versions.c.version, documents.c.space, documents.c.name, versions.c.sha256, versions.c.media_type)
    return sa.select(*columns).join(versions, wanted)


async def _is_wanted(connection: AsyncConnection, pending: PendingVersion) -> bool:
    return (await connection.execute(sa.select(_WANTED).select_from(documents).where(documents.c.id == pending.document_id))).scalar() == pending.version


async def _drop_older(connection: AsyncConnection, pending: PendingVersion) -> list[str]:
    older = sa.and_(versions.c.document_id == pending.document_id, versions.c.version < pending.version)
    digests = list((await connection.execute(sa.select(versions.c.sha256).where(older))).scalars())
    await _discard_chunks(connection, sa.and_(chunks.c.document_id == pending.document_id, chunks.c.version < pending.version))
    await connection.execute(sa.delete(versions).where(older))
    return digests


async def _discard_chunks(connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> None:
    await connection.execute(sa.insert(garbage).from_select(["chunk_id"], sa.select(chunks.c.id).where(condition)))
    await connection.execute(sa.delete(chunks).where(condition))


async def _version(connection: AsyncConnection, document_id: str, version: int) -> sa.Row[tuple[object, ...]] | None:
    return (await connection.execute(sa.select(versions).where(versions.c.document_id == document_id, versions.c.version == version))).first()


def _version_values(prepared: PreparedDocument) -> dict[str, object]:
    return {
        "language": prepared.language,
        "media_type": prepared.media_type,
        "title": prepared.title,
        "text": zlib.compress(prepared.text.encode(), 1),
        "length": len(prepared.text),
        "pages": [[span.page, span.start, span.end] for span in prepared.pages],
        "page_count": prepared.page_count,
        "warnings": [[warning.page, warning.code, warning.message] for warning in prepared.warnings],
        "chunks": len(prepared.chunks),
        "embedded_chunks": 0,
    }


def _listing() -> sa.Select[tuple[object, ...]]:
    """Documents with the version that people should see: the live one, or the newest while nothing is live."""
    shown = sa.case((documents.c.live_version > 0, documents.c.live_version), else_=documents.c.newest_version)
    columns = (versions.c.sha256, versions.c.size_bytes, versions.c.media_type, versions.c.version, versions.c.language)
    counts = (versions.c.page_count, versions.c.chunks, versions.c.embedded_chunks, versions.c.warnings)
    return sa.select(
        documents.c.id, documents.c.name, documents.c.space, documents.c.status, documents.c.error,
        documents.c.created_at, documents.c.updated_at, *columns, *counts,
    ).join(versions, sa.and_(versions.c.document_id == documents.c.id, versions.c.version == shown))  # fmt: skip


def _document(row: sa.Row[tuple[object, ...]]) -> Document:
    values = row._mapping  # noqa: SLF001 - the documented way to read a row by name
    return Document(
        id=values["id"],
        name=values["name"],
        space=values["space"],
        media_type=values["media_type"],
        size_bytes=values["size_bytes"],
        sha256=values["sha256"],
        version=values["version"],
        status=values["status"],
        pages=values["page_count"],
        chunks=values["chunks"],
        embedded_chunks=values["embedded_chunks"],
        warnings=tuple(DocumentWarning(*warning) for warning in values["warnings"] or ()),
        error=DocumentError(**values["error"]) if values["error"] else None,
        language=values["language"],
        created_at=values["created_at"],
        updated_at=values["updated_at"],
    )
