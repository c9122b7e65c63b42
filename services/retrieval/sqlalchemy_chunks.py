"""Chunks in SQL: reading them for search, keeping the two indexes in step with them.

The indexes are derived data. ``garbage`` and the ``embedded`` flag are the only memory of what they still owe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.contracts.retrieval.v1.api import Passage
from appliance.kit.sql import read_at_once, reading, writing
from appliance.language.terms import PassageTerms, decode_passage_terms
from services.retrieval.domain import AccessFilter, IndexEntry
from services.retrieval.tables import chunks, documents, garbage, versions

_IDS_PER_STATEMENT = 5_000
_LIVE = sa.and_(documents.c.id == chunks.c.document_id, documents.c.live_version == chunks.c.version)
_OWN_VERSION = sa.and_(versions.c.document_id == chunks.c.document_id, versions.c.version == chunks.c.version)


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A chunk that has no vector yet, and the text to embed for it."""

    entry: IndexEntry
    text: str


class SqlChunks:
    """Chunk rows of the catalogue."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def passages(self, chunk_ids: Sequence[int], access: AccessFilter) -> dict[int, tuple[Passage, PassageTerms]]:
        """Live chunks by id with their analysed terms; ids that are gone, superseded or outside ``access`` are missing.

        The indexes have applied ``access`` already; the condition here keeps the promise if an index is stale.
        """
        columns = (chunks, documents.c.name, documents.c.space)
        statement = sa.select(*columns).join(documents, _LIVE).where(chunks.c.id.in_(chunk_ids))

        def read(connection: sa.Connection) -> dict[int, tuple[Passage, PassageTerms]]:
            # spaces are compared here, not in SQL: SQLite would start from the index on spaces and read every document (10 ms for 0.3)
            rows = [row for row in connection.execute(statement) if row.space in access.spaces]
            return {row.id: (_passage(row), decode_passage_terms(row.terms)) for row in rows}

        return await read_at_once(self._engine, read)

    async def documents_named(self, name: str, spaces: frozenset[str]) -> list[str]:
        """Ids of the documents called ``name`` in ``spaces``."""
        statement = sa.select(documents.c.id).where(documents.c.name == name, documents.c.space.in_(sorted(spaces))).order_by(documents.c.id)
        async with reading(self._engine) as connection:
            return list((await connection.execute(statement)).scalars())

    async def still_there(self, chunk_ids: Sequence[int]) -> set[int]:
        """Those of ``chunk_ids`` that have a row."""
        found: set[int] = set()
        async with reading(self._engine) as connection:
            for begin in range(0, len(chunk_ids), _IDS_PER_STATEMENT):
                part = chunk_ids[begin : begin + _IDS_PER_STATEMENT]
                found.update((await connection.execute(sa.select(chunks.c.id).where(chunks.c.id.in_(part)))).scalars())
        return found

    async def unembedded(self, limit: int) -> list[Unembedded]:
        """The next live chunks without a vector, oldest first."""
        statement = (
            sa.select(chunks, documents.c.space, versions.c.media_type, versions.c.language)
            .join(documents, _LIVE)
            .join(versions, _OWN_VERSION)
            .where(chunks.c.embedded == sa.false())
            .order_by(chunks.c.id)
            .limit(limit)
        )
        async with reading(self._engine) as connection:
            rows = (await connection.execute(statement)).all()
        return [Unembedded(_entry(row), embedding_text(row.heading_path, row.context, row.text)) for row in rows]

    async def unembedded_ids(self) -> list[int]:
        """Ids of all live chunks without a vector."""
        statement = sa.select(chunks.c.id).join(documents, _LIVE).where(chunks.c.embedded == sa.false())
        async with reading(self._engine) as connection:
            return list((await connection.execute(statement)).scalars())

    async def mark_embedded(self, chunk_ids: Sequence[int]) -> None:
        """Record that the vector index holds these chunks durably."""
        async with writing(self._engine) as connection:
            await connection.execute(sa.update(chunks).where(chunks.c.id.in_(chunk_ids)).values(embedded=True))
            touched = sa.select(chunks.c.document_id, chunks.c.version, sa.func.count().label("n")).where(chunks.c.id.in_(chunk_ids))
            for row in (await connection.execute(touched.group_by(chunks.c.document_id, chunks.c.version))).all():
                await connection.execute(
                    sa.update(versions)
                    .where(versions.c.document_id == row.document_id, versions.c.version == row.version)
                    .values(embedded_chunks=versions.c.embedded_chunks + row.n)
                )

    async def forget_vectors(self) -> None:
        """Every chunk counts as not embedded again (the vector index was lost)."""
        async with writing(self._engine) as connection:
            await connection.execute(sa.update(chunks).values(embedded=False))
            await connection.execute(sa.update(versions).values(embedded_chunks=0))

    async def totals(self) -> tuple[int, int]:
        """Live chunks, and those of them that are embedded."""
        statement = sa.select(sa.func.count(), sa.func.sum(sa.cast(chunks.c.embedded, sa.Integer))).select_from(chunks).join(documents, _LIVE)
        async with reading(self._engine) as connection:
            row = (await connection.execute(statement)).one()
        return int(row[0]), int(row[1] or 0)

    async def all_entries(self, batch: int) -> AsyncIterator[list[IndexEntry]]:
        """Every live chunk, ``batch`` at a time, for rebuilding an index."""
        last = 0
        while True:
            statement = (
                sa.select(chunks, documents.c.space, versions.c.media_type, versions.c.language)
                .join(documents, _LIVE)
                .join(versions, _OWN_VERSION)
                .where(chunks.c.id > last)
                .order_by(chunks.c.id)
                .limit(batch)
            )
            async with reading(self._engine) as connection:
                rows = (await connection.execute(statement)).all()
            if not rows:
                return
            last = rows[-1].id
            yield [_entry(row) for row in rows]

    async def garbage(self, limit: int = _IDS_PER_STATEMENT) -> list[int]:
        """Ids that the indexes must forget."""
        async with reading(self._engine) as connection:
            return list((await connection.execute(sa.select(garbage.c.chunk_id).limit(limit))).scalars())

    async def clear_garbage(self, chunk_ids: Sequence[int]) -> None:
        """The indexes have forgotten these durably."""
        async with writing(self._engine) as connection:
            await connection.execute(sa.delete(garbage).where(garbage.c.chunk_id.in_(chunk_ids)))

    async def discard_unfinished(self) -> None:
        """Throw away chunks that no document shows (a crash between storing and publishing)."""
        live = sa.exists().where(_LIVE)
        async with writing(self._engine) as connection:
            await connection.execute(sa.insert(garbage).from_select(["chunk_id"], sa.select(chunks.c.id).where(~live)))
            await connection.execute(sa.delete(chunks).where(~live))


def embedding_text(heading_path: Sequence[str], context: str, text: str) -> str:
    """What the encoder sees of a chunk: its innermost heading, a table's header row, the text."""
    return "\n".join(part for part in ((heading_path[-1] if heading_path else ""), context, text) if part)


def _entry(row: sa.Row[tuple[object, ...]]) -> IndexEntry:
    values = row._mapping  # noqa: SLF001 - the documented way to read a row by name
    return IndexEntry(values["id"], values["space"], values["document_id"], values["media_type"], values["language"] or "other", decode_passage_terms(values["terms"]).joined)


def _passage(row: sa.Row[tuple[object, ...]]) -> Passage:
    values = row._mapping  # noqa: SLF001 - the documented way to read a row by name
    return Passage(
        chunk_id=values["id"],
        document_id=values["document_id"],
        document_name=values["name"],
        version=values["version"],
        space=values["space"],
        page=values["page"],
        heading_path=tuple(values["heading_path"]),
        start=values["start"],
        end=values["end"],
        text=values["text"],
    )
