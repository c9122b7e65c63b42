"""Token accounts per principal and day: counted in memory, written in the background, never on the way of an answer.

Durable up to the last ``usage_flush_seconds``; everything on an orderly stop. A failed write keeps its rows for the next one.
"""

from __future__ import annotations

import asyncio
import time

from appliance.contracts.llm.v1.api import Usage
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway.domain import UsageRow
from services.gateway.ports import UsageStore

_DAY_SECONDS = 86_400
_log = get_logger(__name__)


class UsageAccounts:
    """``count`` on the hot path; ``run`` as a background task; ``flush`` at the end."""

    def __init__(self, store: UsageStore, flush_seconds: float) -> None:
        self._store = store
        self._flush_seconds = flush_seconds
        self._pending: dict[tuple[str, int], list[int]] = {}

    def count(self, subject: str, usage: Usage) -> None:
        """Add one request of ``subject`` to today's account."""
        key = (subject, int(time.time()) // _DAY_SECONDS)
        row = self._pending.get(key)
        if row is None:
            row = self._pending[key] = [0, 0, 0]
        row[0] += 1
        row[1] += usage.prompt_tokens
        row[2] += usage.completion_tokens

    async def run(self) -> None:
        """Write every ``flush_seconds`` until cancelled."""
        while True:
            await asyncio.sleep(self._flush_seconds)
            try:
                await self.flush()
            except ApplianceError as error:
                _log.warning("usage_flush_failed", code=error.code, error=error.message)

    async def flush(self) -> None:
        """Write what has been counted."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        rows = [UsageRow(subject, time.strftime("%Y-%m-%d", time.gmtime(day * _DAY_SECONDS)), *counts) for (subject, day), counts in pending.items()]
        try:
            await self._store.add(rows)
        except BaseException:
            for key, counts in pending.items():
                row = self._pending.setdefault(key, [0, 0, 0])
                self._pending[key] = [old + new for old, new in zip(row, counts, strict=True)]
            raise

    async def read(self, subject: str, days: int) -> list[UsageRow]:
        """Accounts of ``subject`` for the last ``days`` days, today included, oldest first."""
        await self.flush()
        since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - (days - 1) * _DAY_SECONDS))
        return list(await self._store.read(subject, since))
