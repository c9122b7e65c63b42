"""The statements of the truth: what one transaction does with entries, relations and the log of changes. Synchronous, over an open connection.

Invariants: see ``sqlalchemy_truth``, which owns the transactions.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.kit.errors import ApplianceError, not_found
from services.knowledge.domain import Changes, Draft, Record, Removal
from services.knowledge.tables import changes, entries, relations, removed

_IDS_IN_ONE_STATEMENT: Final = 500


def put_draft(connection: Connection, draft: Draft) -> Record:
    """Insert a draft, or update the row with its key or its content; ``not_found`` for a related entry that is not in the space.

    What another wrote stays as it is for a draft that may not change it: the same content is there already, the same key is ``forbidden``.
    """
    digest = hashlib.sha256(draft.content.encode()).hexdigest()
    wanted = _targets(connection, draft)
    found = _found(connection, draft, digest)
    if not draft.over_others and any(one.author != draft.author for one in found):
        return _kept_by_another(draft, found)
    row_id, doubles = (found[0].row_id, found[1:]) if found else (None, [])
    for double in doubles:
        remove(connection, double)
    values: dict[str, Any] = {
        "space": draft.space, "type": draft.type.value, "key": draft.key, "digest": digest, "content": draft.content,
        "metadata": draft.metadata, "facts": draft.facts, "embedding": draft.embedding, "model": draft.model,
        "version": next_version(connection), "author": draft.author,
    }  # fmt: skip
    if row_id is None:
        values |= {"id": f"k_{secrets.token_hex(12)}", "created_at": time.time()}
        row_id = int(connection.execute(sa.insert(entries).values(values).returning(entries.c.row_id)).scalar_one())
    else:
        values["key"] = draft.key if draft.key is not None else entries.c.key
        connection.execute(sa.update(entries).where(entries.c.row_id == row_id).values(values))
        connection.execute(sa.delete(relations).where(relations.c.source == row_id))
    apart = {row_id, *(double.row_id for double in doubles)}
    if pairs := [{"source": row_id, "target": target} for target in wanted if target not in apart]:
        connection.execute(sa.insert(relations), pairs)
    return records(connection, entries.c.row_id == row_id)[0]


def _targets(connection: Connection, draft: Draft) -> list[int]:
    if not draft.related:
        return []
    rows = connection.execute(sa.select(entries.c.row_id).where(entries.c.id.in_(draft.related), entries.c.space == draft.space))
    found = [int(row.row_id) for row in rows]
    if len(found) != len(draft.related):
        raise not_found("related entry")
    return found


def _found(connection: Connection, draft: Draft, digest: str) -> list[Record]:
    """The row to replace, the one with the key before the one with the content, and the row that would double it."""
    same = entries.c.digest == digest
    if draft.key is not None:
        same |= entries.c.key == draft.key
    found = records(connection, sa.and_(entries.c.space == draft.space, same))
    return sorted(found, key=lambda record: record.key != draft.key)


def _kept_by_another(draft: Draft, found: list[Record]) -> Record:
    if len(found) == 1 and (draft.key is None or found[0].key != draft.key):
        return found[0]  # the same content: it is kept
    hint = "choose another key, or ask an owner of the space"
    raise ApplianceError("forbidden", "another wrote the entry with this key or content", hint=hint)


def remove(connection: Connection, record: Record) -> int:
    """Remove one entry and remember that; returns the version of the last change."""
    gone: dict[str, Any] = {
        "version": next_version(connection),
        "space": record.entry.space,
        "row_id": record.row_id,
        "id": record.entry.id,
    }
    connection.execute(sa.insert(removed).values(gone))
    connection.execute(sa.delete(entries).where(entries.c.row_id == record.row_id))
    if task_id := record.facts.get("task", {}).get("id"):  # what its sibling says about the task holds again
        siblings = [f"execution:{task_id}", f"failure:{task_id}"]
        rows = connection.execute(sa.select(entries.c.row_id).where(entries.c.space == record.entry.space, entries.c.key.in_(siblings)))
        for row in rows.all():
            version = next_version(connection)
            connection.execute(sa.update(entries).where(entries.c.row_id == row.row_id).values(version=version))
            gone["version"] = version
    return int(gone["version"])


def next_version(connection: Connection) -> int:
    """The number of the change that is being made."""
    step = sa.update(changes).where(changes.c.name == "entries").values(last=changes.c.last + 1).returning(changes.c.last)
    version = (connection.execute(step)).scalar_one_or_none()
    if version is None:
        connection.execute(sa.insert(changes).values(name="entries", last=1))
        return 1
    return int(version)


def changes_after(connection: Connection, version: int, limit: int, space: str | None, *, with_relations: bool) -> Changes:
    """Removals and entries that are newer than ``version``, at most ``limit`` of each."""
    in_space = [] if space is None else [entries.c.space == space]
    gone_in_space = [] if space is None else [removed.c.space == space]
    head = connection.execute(sa.select(changes.c.last).where(changes.c.name == "entries")).scalar_one_or_none() or 0
    removals = sa.select(removed).where(removed.c.version > version, *gone_in_space).order_by(removed.c.version).limit(limit)
    gone = connection.execute(removals).all()
    found = records(connection, sa.and_(entries.c.version > version, *in_space), limit=limit, with_relations=with_relations)
    upto = int(head)
    if len(gone) == limit:
        upto = min(upto, int(gone[-1].version))
    if len(found) == limit:
        upto = min(upto, found[-1].version)
    seen = [Removal(int(row.version), row.space, row.row_id, row.id) for row in gone if row.version <= upto]
    return Changes(seen, [record for record in found if record.version <= upto], upto, upto == head)


def records(connection: Connection, where: sa.ColumnElement[bool], *, limit: int | None = None, with_relations: bool = True) -> list[Record]:
    """Entries in the order of their versions, with the ids of their relations if asked."""
    rows = (connection.execute(sa.select(entries).where(where).order_by(entries.c.version).limit(limit))).all()
    records = [_record(row) for row in rows]
    if not with_relations or not records:
        return records
    related = _related(connection, [record.row_id for record in records])
    return [replace(one, entry=_with_related(one.entry, related.get(one.row_id, ()))) for one in records]


def _related(connection: Connection, row_ids: list[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    joined = sa.join(relations, entries, relations.c.target == entries.c.row_id)
    for begin in range(0, len(row_ids), _IDS_IN_ONE_STATEMENT):
        part = row_ids[begin : begin + _IDS_IN_ONE_STATEMENT]
        query = sa.select(relations.c.source, entries.c.id).select_from(joined).where(relations.c.source.in_(part)).order_by(relations.c.target)
        for row in connection.execute(query):
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
    return Record(int(data["row_id"]), entry, data["key"], data["facts"], data["embedding"], data["model"], int(data["version"]), data["author"])
