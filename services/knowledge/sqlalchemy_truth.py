"""The truth: entries, relations and the log of changes in one SQL database. Owns their rows; knows nothing of the indexes.

Invariants:
    1. In a space no two entries have the same key, and no two the same content.
    2. A row id is never used twice, and every change has a version of its own, above all before it.
    3. Relations never leave their space.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.kit.errors import not_found
from appliance.kit.sql import reading, writing
from services.knowledge.domain import Changes, Draft, Record, Removal
from services.knowledge.tables import changes, entries, relations, removed

_IDS_IN_ONE_STATEMENT: Final = 500


class SqlTruth:
    """Implements ``Truth``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, draft: Draft) -> Record:
        """Keep a draft, in place of the entry with its key or its content if there is one.

        Raises:
            ApplianceError: ``not_found`` when a related entry is not in the same space.
        """
        digest = hashlib.sha256(draft.content.encode()).hexdigest()
        async with writing(self._engine) as connection:
            targets = await self._targets(connection, draft)
            row_id, doubles = await self._place(connection, draft, digest)
            for double in doubles:
                await self._remove(connection, double)
            values: dict[str, Any] = {
                "space": draft.space, "type": draft.type.value, "key": draft.key, "digest": digest, "content": draft.content,
                "metadata": draft.metadata, "facts": draft.facts, "embedding": draft.embedding, "model": draft.model,
                "version": await self._next_version(connection),
            }  # fmt: skip
            if row_id is None:
                values |= {"id": f"k_{secrets.token_hex(12)}", "created_at": time.time()}
                row_id = int((await connection.execute(sa.insert(entries).values(values).returning(entries.c.row_id))).scalar_one())
            else:
                values["key"] = draft.key if draft.key is not None else entries.c.key
                await connection.execute(sa.update(entries).where(entries.c.row_id == row_id).values(values))
                await connection.execute(sa.delete(relations).where(relations.c.source == row_id))
            pairs = [{"source": row_id, "target": target} for target in targets if target not in {row_id, *(double.row_id for double in doubles)}]
            if pairs:
                await connection.execute(sa.insert(relations), pairs)
            return (await self._records(connection, entries.c.row_id == row_id))[0]

    async def _targets(self, connection: AsyncConnection, draft: Draft) -> list[int]:
        if not draft.related:
            return []
        rows = await connection.execute(sa.select(entries.c.row_id).where(entries.c.id.in_(draft.related), entries.c.space == draft.space))
        found = [int(row.row_id) for row in rows]
        if len(found) != len(draft.related):
            raise not_found("related entry")
        return found

    async def _place(self, connection: AsyncConnection, draft: Draft, digest: str) -> tuple[int | None, list[Record]]:
        """The row to replace, the one with the key before the one with the content, and the row that would double it."""
        same = entries.c.digest == digest
        if draft.key is not None:
            same |= entries.c.key == draft.key
        found = await self._records(connection, sa.and_(entries.c.space == draft.space, same))
        found.sort(key=lambda record: record.key != draft.key)
        return (found[0].row_id, found[1:]) if found else (None, [])

    async def _remove(self, connection: AsyncConnection, record: Record) -> None:
        gone = {"version": await self._next_version(connection), "space": record.entry.space, "row_id": record.row_id, "id": record.entry.id}
        await connection.execute(sa.insert(removed).values(gone))
        await connection.execute(sa.delete(entries).where(entries.c.row_id == record.row_id))
        if task_id := record.facts.get("task", {}).get("id"):  # what its sibling says about the task holds again
            siblings = [f"execution:{task_id}", f"failure:{task_id}"]
            rows = await connection.execute(sa.select(entries.c.row_id).where(entries.c.space == record.entry.space, entries.c.key.in_(siblings)))
            for row in rows.all():
                version = await self._next_version(connection)
                await connection.execute(sa.update(entries).where(entries.c.row_id == row.row_id).values(version=version))

    async def remove(self, entry_id: str, spaces: frozenset[str]) -> None:
        """Remove one entry; ``not_found`` when it is not in ``spaces``."""
        async with writing(self._engine) as connection:
            found = await self._records(connection, sa.and_(entries.c.id == entry_id, entries.c.space.in_(spaces)))
            if not found:
                raise not_found("entry")
            await self._remove(connection, found[0])

    async def remove_space(self, space: str) -> int:
        """Remove all entries of a space; returns how many there were. The removal itself is remembered also when there were none."""
        async with writing(self._engine) as connection:
            gone = await connection.execute(sa.delete(entries).where(entries.c.space == space))
            await connection.execute(sa.delete(removed).where(removed.c.space == space))
            version = await self._next_version(connection)
            await connection.execute(sa.insert(removed).values(version=version, space=space, row_id=None, id=None))
            return int(gone.rowcount)

    async def _next_version(self, connection: AsyncConnection) -> int:
        step = sa.update(changes).where(changes.c.name == "entries").values(last=changes.c.last + 1).returning(changes.c.last)
        version = (await connection.execute(step)).scalar_one_or_none()
        if version is None:
            await connection.execute(sa.insert(changes).values(name="entries", last=1))
            return 1
        return int(version)

    async def get(self, entry_id: str, spaces: frozenset[str]) -> Record:
        """One entry with its relations; ``not_found`` when it is not in ``spaces``."""
        async with reading(self._engine) as connection:
            found = await self._records(connection, sa.and_(entries.c.id == entry_id, entries.c.space.in_(spaces)))
        if not found:
            raise not_found("entry")
        return found[0]

    async def with_key(self, space: str, key: str) -> Record | None:
        """The entry with this key in a space."""
        async with reading(self._engine) as connection:
            found = await self._records(connection, sa.and_(entries.c.space == space, entries.c.key == key))
        return found[0] if found else None

    async def rows(self, row_ids: Sequence[int], spaces: frozenset[str]) -> dict[int, Record]:
        """Those of ``row_ids`` that are in ``spaces``: a second lock behind the indexes' own filter."""
        async with reading(self._engine) as connection:
            found = await self._records(connection, entries.c.row_id.in_(row_ids))
        return {record.row_id: record for record in found if record.entry.space in spaces}

    async def spaces_of(self, entry_ids: Iterable[str]) -> Mapping[str, str]:
        """Id → space of the entries that exist."""
        wanted = list(dict.fromkeys(entry_ids))
        async with reading(self._engine) as connection:
            rows = await connection.execute(sa.select(entries.c.id, entries.c.space).where(entries.c.id.in_(wanted)))
            return {row.id: row.space for row in rows}

    async def changes_after(self, version: int, limit: int, space: str | None = None, *, with_relations: bool = False) -> Changes:
        """Removals and entries that are newer than ``version``, at most about ``limit`` of each."""
        in_space = [] if space is None else [entries.c.space == space]
        gone_in_space = [] if space is None else [removed.c.space == space]
        async with reading(self._engine) as connection:
            head = (await connection.execute(sa.select(changes.c.last).where(changes.c.name == "entries"))).scalar_one_or_none() or 0
            gone = (
                await connection.execute(
                    sa.select(removed).where(removed.c.version > version, *gone_in_space).order_by(removed.c.version).limit(limit)
                )
            ).all()
            records = await self._records(connection, sa.and_(entries.c.version > version, *in_space), limit=limit, with_relations=with_relations)
        upto = int(head)
        if len(gone) == limit:
            upto = min(upto, int(gone[-1].version))
        if len(records) == limit:
            upto = min(upto, records[-1].version)
        removals = [Removal(int(row.version), row.space, row.row_id, row.id) for row in gone if row.version <= upto]
        return Changes(removals, [record for record in records if record.version <= upto], upto, upto == head)

    async def forget_removals(self, space: str, upto: int) -> None:
        """All indexes have seen these."""
        async with writing(self._engine) as connection:
            await connection.execute(sa.delete(removed).where(removed.c.space == space, removed.c.version <= upto))

    async def has_removals(self, space: str, upto: int) -> bool:
        """Whether :meth:`forget_removals` would forget anything."""
        async with reading(self._engine) as connection:
            return bool((await connection.execute(sa.select(sa.exists().where(removed.c.space == space, removed.c.version <= upto)))).scalar())

    async def count(self, space: str | None = None, model: str | None = None) -> int:
        """Entries, of one space or of all, with a vector of ``model`` or with any or none."""
        where = ([] if space is None else [entries.c.space == space]) + (
            [] if model is None else [entries.c.model == model, entries.c.embedding.is_not(None)]
        )
        async with reading(self._engine) as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(entries).where(*where))).scalar_one())

    async def count_at(self, space: str, version: int) -> int | None:
        """Entries of a space if nothing in it is newer than ``version``, else None: what an index at that version must hold."""
        newer = [sa.exists().where(table.c.space == space, table.c.version > version) for table in (entries, removed)]
        query = sa.select(sa.func.count(), sa.or_(*newer)).select_from(entries).where(entries.c.space == space)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one()
        return None if row[1] else int(row[0])

    async def without_vector(self, model: str, limit: int) -> list[tuple[int, int, str]]:
        """(row id, version, content) of entries whose vector is not of ``model``."""
        query = sa.select(entries.c.row_id, entries.c.version, entries.c.content).where(entries.c.model != model).limit(limit)
        async with reading(self._engine) as connection:
            return [(int(row.row_id), int(row.version), row.content) for row in await connection.execute(query)]

    async def set_vectors(self, vectors: Sequence[tuple[int, int, bytes]], model: str) -> None:
        """(row id, version that was read, float32 bytes); entries that have changed since are left alone."""
        async with writing(self._engine) as connection:
            for row_id, seen, vector in vectors:
                values = {"embedding": vector, "model": model, "version": await self._next_version(connection)}
                await connection.execute(sa.update(entries).where(entries.c.row_id == row_id, entries.c.version == seen).values(values))

    async def _records(
        self, connection: AsyncConnection, where: sa.ColumnElement[bool], *, limit: int | None = None, with_relations: bool = True
    ) -> list[Record]:
        rows = (await connection.execute(sa.select(entries).where(where).order_by(entries.c.version).limit(limit))).all()
        records = [_record(row) for row in rows]
        if not with_relations or not records:
            return records
        related = await self._related(connection, [record.row_id for record in records])
        return [replace(one, entry=_with_related(one.entry, related.get(one.row_id, ()))) for one in records]

    async def _related(self, connection: AsyncConnection, row_ids: list[int]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        joined = sa.join(relations, entries, relations.c.target == entries.c.row_id)
        for begin in range(0, len(row_ids), _IDS_IN_ONE_STATEMENT):
            part = row_ids[begin : begin + _IDS_IN_ONE_STATEMENT]
            query = sa.select(relations.c.source, entries.c.id).select_from(joined).where(relations.c.source.in_(part)).order_by(relations.c.target)
            for row in await connection.execute(query):
                found.setdefault(int(row.source), []).append(row.id)
        return found


def _with_related(entry: KnowledgeEntry, related: Sequence[str]) -> KnowledgeEntry:
    return KnowledgeEntry(
        id=entry.id, type=entry.type, content=entry.content, metadata=entry.metadata, related_entries=tuple(related), space=entry.space,
        created_at=entry.created_at,
    )  # fmt: skip


def _record(row: sa.Row[Any]) -> Record:
    data = row._mapping  # noqa: SLF001 - the row's public mapping, spelt so because columns may have any name
    entry = KnowledgeEntry(
        id=data["id"], type=KnowledgeType(data["type"]), content=data["content"], metadata=data["metadata"], space=data["space"], created_at=data["created_at"],
    )  # fmt: skip
    return Record(int(data["row_id"]), entry, data["key"], data["facts"], data["embedding"], data["model"], int(data["version"]))
