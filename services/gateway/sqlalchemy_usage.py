"""Token accounts in a relational database."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.kit.sql import reading, writing
from services.gateway.domain import UsageRow
from services.gateway.tables import usage


class SqlAlchemyUsage:
    """Satisfies ``UsageStore``; the engine belongs to the caller."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """See ``UsageStore``; update first, insert what was not there (works alike on every database)."""
        async with writing(self._engine) as connection:
            for row in rows:
                added = await connection.execute(
                    sa.update(usage)
                    .where(usage.c.subject == row.subject, usage.c.day == row.day)
                    .values(
                        requests=usage.c.requests + row.requests,
                        prompt_tokens=usage.c.prompt_tokens + row.prompt_tokens,
                        completion_tokens=usage.c.completion_tokens + row.completion_tokens,
                    )
                )
                if added.rowcount == 0:
                    await connection.execute(
                        sa.insert(usage).values(
                            subject=row.subject,
                            day=row.day,
                            requests=row.requests,
                            prompt_tokens=row.prompt_tokens,
                            completion_tokens=row.completion_tokens,
                        )
                    )

    async def read(self, subject: str, since_day: str) -> Sequence[UsageRow]:
        """See ``UsageStore``."""
        query = sa.select(usage).where(usage.c.subject == subject, usage.c.day >= since_day).order_by(usage.c.day)
        async with reading(self._engine) as connection:
            return [
                UsageRow(row.subject, row.day, row.requests, row.prompt_tokens, row.completion_tokens)
                for row in (await connection.execute(query)).all()
            ]
