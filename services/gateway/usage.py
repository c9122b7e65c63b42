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
_MOST_TOKENS = 2**31 - 1
_Key = tuple[str, int]
_log = get_logger(__name__)


class UsageAccounts:
    """``count`` on the hot path; ``run`` as a background task; ``flush`` at the end."""

    def __init__(self, store: UsageStore, flush_seconds: float) -> None:
        self._store = store
        self._flush_seconds = flush_seconds
        self._pending: dict[_Key, list[int]] = {}

    def count(self, subject: str, usage: Usage) -> None:
        """Add one request of ``subject`` to today's account."""
        key = (subject, int(time.time()) // _DAY_SECONDS)
        row = self._pending.get(key)
        if row is None:
            row = self._pending[key] = [0, 0, 0]
        row[0] += 1
        row[1] += max(0, min(usage.prompt_tokens, _MOST_TOKENS))
        row[2] += max(0, min(usage.completion_tokens, _MOST_TOKENS))

    async def run(self) -> None:
        """Write every ``flush_seconds`` until cancelled."""
        while True:
            await asyncio.sleep(self._flush_seconds)
            try:
                await self.flush()
            except ApplianceError as error:
                _log.warning("usage_flush_failed", code=error.code, error=error.message)
            except Exception:
                _log.exception("usage_flush_failed")

    async def flush(self) -> None:
        """Write what has been counted; a row that the store chokes on is dropped and logged, so that it does not hold up the others.

        Raises:
            ApplianceError: the store cannot write at all; everything is kept for the next time.
        """
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            await self._store.add([_row(key, counts) for key, counts in pending.items()])
        except Exception as error:
            if isinstance(error, ApplianceError):
                self._keep(pending)
                raise
            await self._flush_singly(pending)
        except BaseException:
            self._keep(pending)
            raise

    async def _flush_singly(self, pending: dict[_Key, list[int]]) -> None:
        while pending:
            key, counts = next(iter(pending.items()))
            try:
                await self._store.add([_row(key, counts)])
            except Exception as error:
                if isinstance(error, ApplianceError):
                    self._keep(pending)
                    raise
                _log.exception("usage_row_dropped", subject=key[0], day=key[1], counts=counts)
            except BaseException:
                self._keep(pending)
                raise
            del pending[key]

    def _keep(self, pending: dict[_Key, list[int]]) -> None:
        for key, counts in pending.items():
            row = self._pending.setdefault(key, [0, 0, 0])
            self._pending[key] = [old + new for old, new in zip(row, counts, strict=True)]

    async def read(self, subject: str, days: int) -> list[UsageRow]:
        """Accounts of ``subject`` for the last ``days`` days, today included, oldest first; without the last seconds when they cannot be written."""
        try:
            await self.flush()
        except Exception as error:
            _log.warning("usage_flush_failed", error=str(error))
        since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - (days - 1) * _DAY_SECONDS))
        return list(await self._store.read(subject, since))


def _row(key: _Key, counts: list[int]) -> UsageRow:
    subject, day = key
    return UsageRow(subject, time.strftime("%Y-%m-%d", time.gmtime(day * _DAY_SECONDS)), counts[0], counts[1], counts[2])
