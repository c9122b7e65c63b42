"""Token accounts in a relational database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.kit.sql import reading, writing
from services.gateway.domain import UsageDimension, UsageQuery, UsageRow, UsageTotal
from services.gateway.tables import accounts

_COUNTS: Final = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "saved_tokens", "cache_hits", "tool_calls", "cost_nano")
_NAMES: Final = ("day", "subject", "account", "model", "space", "thread", "task")
_COLUMNS: Final[Mapping[UsageDimension, sa.ColumnElement[str]]] = {
    "day": accounts.c.day,
    "user": accounts.c.account,
    "space": accounts.c.space,
    "thread": accounts.c.thread,
    "task": accounts.c.task,
    "model": accounts.c.model,
}


class SqlAlchemyUsage:
    """Satisfies ``UsageStore``; the engine belongs to the caller."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """See ``UsageStore``; update first, insert what was not there (works alike on every database)."""
        async with writing(self._engine) as connection:
            for row in rows:
                names = {name: getattr(row, name) for name in _NAMES}
                counts = {name: getattr(row, name) for name in _COUNTS}
                found = sa.and_(*(accounts.c[name] == value for name, value in names.items()))
                added = {name: accounts.c[name] + count for name, count in counts.items()}
                if (await connection.execute(sa.update(accounts).where(found).values(added))).rowcount == 0:
                    await connection.execute(sa.insert(accounts).values({**names, **counts}))

    async def read(self, subject: str, since_day: str) -> Sequence[UsageRow]:
        """See ``UsageStore``."""
        query = (
            sa.select(accounts.c.day, *_sums())
            .where(accounts.c.subject == subject, accounts.c.day >= since_day)
            .group_by(accounts.c.day)
            .order_by(accounts.c.day)
        )
        async with reading(self._engine) as connection:
            return [UsageRow(subject, row.day, **_counts(row)) for row in (await connection.execute(query)).all()]

    async def totals(self, query: UsageQuery) -> Sequence[UsageTotal]:
        """See ``UsageStore``."""
        group = _COLUMNS[query.by]
        statement = sa.select(group.label("key"), *_sums()).where(accounts.c.day >= query.since, accounts.c.day <= query.until)
        if query.account is not None:
            own = accounts.c.account == query.account
            statement = statement.where(sa.or_(own, accounts.c.subject == query.subject) if query.subject else own)
        by_size = sa.desc(sa.func.sum(accounts.c.prompt_tokens + accounts.c.completion_tokens))
        statement = statement.group_by(group).order_by(*((group,) if query.by == "day" else (by_size, group))).limit(query.limit)
        async with reading(self._engine) as connection:
            return [UsageTotal(row.key, **_counts(row)) for row in (await connection.execute(statement)).all()]

    async def spent(self, since_day: str) -> Sequence[UsageRow]:
        """See ``UsageStore``."""
        groups = (accounts.c.day, accounts.c.account, accounts.c.space)
        statement = sa.select(*groups, *_sums()).where(accounts.c.day >= since_day).group_by(*groups)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(statement)).all()
        return [UsageRow(row.account, row.day, account=row.account, space=row.space, **_counts(row)) for row in rows]


def _sums() -> list[sa.ColumnElement[int]]:
    return [sa.func.sum(accounts.c[name]).label(name) for name in _COUNTS]


def _counts(row: Any) -> dict[str, Any]:
    return {name: int(getattr(row, name)) for name in _COUNTS}
