"""The truth: entries, relations and the log of changes in one SQL database. Owns its transactions; knows nothing of the indexes.

Each transaction is one trip to the database's thread (``appliance.kit.sql.read_at_once``): a store makes about ten statements.

Invariants:
    1. In a space no two entries have the same key, and no two the same content.
    2. A row id is never used twice, and every change has a version of its own, above all before it.
    3. Relations never leave their space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.sql import read_at_once, writing
from services.knowledge import truth_statements as statements
from services.knowledge.domain import Changes, Draft, Record
from services.knowledge.tables import entries, removed

Result = TypeVar("Result")


class SqlTruth:
    """Entries as they are kept."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def _write(self, change: Callable[[Connection], Result]) -> Result:
        async with writing(self._engine) as connection:
            return await connection.run_sync(change)

    async def put(self, drafts: Sequence[Draft]) -> list[Record | ApplianceError]:
        """Keep drafts in one transaction, each in place of the entry with its key or its content if there is one.

        A draft whose related entry is not in its space is left out; its ``not_found`` stands in its place.
        """

        def one(connection: Connection, draft: Draft) -> Record | ApplianceError:
            try:
                return statements.put_draft(connection, draft)
            except ApplianceError as refusal:  # raised before anything of this draft is written
                return refusal

        return await self._write(lambda connection: [one(connection, draft) for draft in drafts])

    async def remove(self, entry_id: str, spaces: frozenset[str]) -> int:
        """Remove one entry; ``not_found`` when it is not in ``spaces``. Returns the version of the change."""

        def change(connection: Connection) -> int:
            found = statements.records(connection, sa.and_(entries.c.id == entry_id, entries.c.space.in_(spaces)))
            if not found:
                raise not_found("entry")
            return statements.remove(connection, found[0])

        return await self._write(change)

    async def remove_space(self, space: str) -> tuple[int, int]:
        """Remove all entries of a space; returns how many there were and the version of the change, which is remembered also when there were none."""

        def change(connection: Connection) -> tuple[int, int]:
            gone = connection.execute(sa.delete(entries).where(entries.c.space == space))
            connection.execute(sa.delete(removed).where(removed.c.space == space))
            version = statements.next_version(connection)
            connection.execute(sa.insert(removed).values(version=version, space=space, row_id=None, id=None))
            return int(gone.rowcount), version

        return await self._write(change)

    async def get(self, entry_id: str, spaces: frozenset[str]) -> Record:
        """One entry with its relations; ``not_found`` when it is not in ``spaces``."""
        found = await self._records(sa.and_(entries.c.id == entry_id, entries.c.space.in_(spaces)))
        if not found:
            raise not_found("entry")
        return found[0]

    async def with_key(self, space: str, key: str) -> Record | None:
        """The entry with this key in a space."""
        found = await self._records(sa.and_(entries.c.space == space, entries.c.key == key))
        return found[0] if found else None

    async def rows(self, row_ids: Sequence[int], spaces: frozenset[str]) -> dict[int, Record]:
        """Those of ``row_ids`` that are in ``spaces``: a second lock behind the indexes' own filter."""
        found = await self._records(entries.c.row_id.in_(row_ids))
        return {record.row_id: record for record in found if record.entry.space in spaces}

    async def _records(self, where: sa.ColumnElement[bool]) -> list[Record]:
        return await read_at_once(self._engine, lambda connection: statements.records(connection, where))

    async def spaces_of(self, entry_ids: Iterable[str]) -> Mapping[str, str]:
        """Id → space of the entries that exist."""
        query = sa.select(entries.c.id, entries.c.space).where(entries.c.id.in_(list(dict.fromkeys(entry_ids))))
        return await read_at_once(self._engine, lambda connection: {row.id: row.space for row in connection.execute(query)})

    async def changes_after(self, version: int, limit: int, space: str | None = None, *, with_relations: bool = False) -> Changes:
        """Removals and entries that are newer than ``version``, at most ``limit`` of each."""
        return await read_at_once(
            self._engine, lambda connection: statements.changes_after(connection, version, limit, space, with_relations=with_relations)
        )

    async def forget_removals(self, space: str, upto: int) -> None:
        """All indexes have seen these."""
        done = sa.and_(removed.c.space == space, removed.c.version <= upto)
        asked = sa.select(sa.exists().where(done))
        if await read_at_once(self._engine, lambda connection: bool(connection.execute(asked).scalar())):
            await self._write(lambda connection: connection.execute(sa.delete(removed).where(done)).rowcount)

    async def count(self, space: str | None = None, model: str | None = None) -> int:
        """Entries, of one space or of all, with a vector of ``model`` or with any or none."""
        where = [] if space is None else [entries.c.space == space]
        where += [] if model is None else [entries.c.model == model, entries.c.embedding.is_not(None)]
        query = sa.select(sa.func.count()).select_from(entries).where(*where)
        return await read_at_once(self._engine, lambda connection: int(connection.execute(query).scalar_one()))

    async def count_at(self, space: str, version: int) -> int | None:
        """Entries of a space if nothing in it is newer than ``version``, else None: what an index at that version must hold."""
        newer = [sa.exists().where(table.c.space == space, table.c.version > version) for table in (entries, removed)]
        query = sa.select(sa.func.count(), sa.or_(*newer)).select_from(entries).where(entries.c.space == space)
        count, has_newer = await read_at_once(self._engine, lambda connection: connection.execute(query).one())
        return None if has_newer else int(count)

    async def without_vector(self, model: str, limit: int) -> list[tuple[int, int, str]]:
        """(row id, version, content) of entries whose vector is not of ``model``."""
        query = sa.select(entries.c.row_id, entries.c.version, entries.c.content).where(entries.c.model != model).limit(limit)
        rows = await read_at_once(self._engine, lambda connection: connection.execute(query).all())
        return [(int(row.row_id), int(row.version), row.content) for row in rows]

    async def set_vectors(self, vectors: Sequence[tuple[int, int, bytes]], model: str) -> None:
        """(row id, version that was read, float32 bytes); entries that have changed since are left alone."""

        def change(connection: Connection) -> None:
            for row_id, seen, vector in vectors:
                values = {"embedding": vector, "model": model, "version": statements.next_version(connection)}
                connection.execute(sa.update(entries).where(entries.c.row_id == row_id, entries.c.version == seen).values(values))

        await self._write(change)
