"""Threads in a relational database (SQLite in the embedded profile, PostgreSQL on a site)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.contracts.router.v1.api import CitationEvent
from appliance.kit.errors import not_found
from appliance.kit.sql import reading, writing
from services.gateway.domain import Thread, ThreadMessage
from services.gateway.tables import messages, threads


class SqlAlchemyThreads:
    """Satisfies ``ThreadStore``; the engine belongs to the caller."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, owner: str, title: str, spaces: tuple[str, ...] | None) -> Thread:
        """See ``ThreadStore``."""
        now = time.time()
        thread = Thread(f"th_{secrets.token_hex(12)}", owner, title, spaces, now, now)
        async with writing(self._engine) as connection:
            await connection.execute(sa.insert(threads).values(asdict(thread) | {"spaces": None if spaces is None else list(spaces)}))
        return thread

    async def list(self, owner: str, limit: int) -> Sequence[Thread]:
        """See ``ThreadStore``."""
        query = sa.select(threads).where(threads.c.owner == owner).order_by(threads.c.updated_at.desc(), threads.c.id).limit(limit)
        async with reading(self._engine) as connection:
            return [_thread(row) for row in (await connection.execute(query)).all()]

    async def get(self, owner: str, thread_id: str) -> tuple[Thread, Sequence[ThreadMessage]]:
        """See ``ThreadStore``."""
        query = sa.select(messages).where(messages.c.thread_id == thread_id).order_by(messages.c.position)
        async with reading(self._engine) as connection:
            thread = await _owned(connection, owner, thread_id)
            return thread, [_message(row) for row in (await connection.execute(query)).all()]

    async def rename(self, owner: str, thread_id: str, title: str) -> Thread:
        """See ``ThreadStore``."""
        async with writing(self._engine) as connection:
            await _owned(connection, owner, thread_id)
            await connection.execute(sa.update(threads).where(threads.c.id == thread_id).values(title=title, updated_at=time.time()))
            return await _owned(connection, owner, thread_id)

    async def delete(self, owner: str, thread_id: str) -> None:
        """See ``ThreadStore``."""
        async with writing(self._engine) as connection:
            await _owned(connection, owner, thread_id)
            await connection.execute(sa.delete(messages).where(messages.c.thread_id == thread_id))
            await connection.execute(sa.delete(threads).where(threads.c.id == thread_id))

    async def add_turn(self, owner: str, thread_id: str, question: str, answer: str, citations: Sequence[CitationEvent], model: str) -> None:
        """See ``ThreadStore``."""
        now = time.time()
        rows: list[dict[str, object]] = [
            {"id": _message_id(), "thread_id": thread_id, "role": "user", "content": question, "citations": [], "model": None, "created_at": now},
            {
                "id": _message_id(),
                "thread_id": thread_id,
                "role": "assistant",
                "content": answer,
                "citations": [asdict(citation) for citation in citations],
                "model": model,
                "created_at": now,
            },
        ]
        async with writing(self._engine) as connection:
            await _owned(connection, owner, thread_id)
            await connection.execute(sa.insert(messages), rows)
            await connection.execute(sa.update(threads).where(threads.c.id == thread_id).values(updated_at=now))


async def _owned(connection: AsyncConnection, owner: str, thread_id: str) -> Thread:
    row = (await connection.execute(sa.select(threads).where(threads.c.id == thread_id, threads.c.owner == owner))).one_or_none()
    if row is None:
        raise not_found("thread")
    return _thread(row)


def _thread(row: sa.Row[Any]) -> Thread:
    return Thread(row.id, row.owner, row.title, None if row.spaces is None else tuple(row.spaces), row.created_at, row.updated_at)


def _message(row: sa.Row[Any]) -> ThreadMessage:
    stored: list[dict[str, Any]] = row.citations
    citations = tuple(CitationEvent(**(citation | {"heading_path": tuple(citation["heading_path"])})) for citation in stored)
    return ThreadMessage(row.id, row.role, row.content, citations, row.model, row.created_at)


def _message_id() -> str:
    return f"msg_{secrets.token_hex(12)}"
