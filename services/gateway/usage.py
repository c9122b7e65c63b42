"""Token accounts by principal, model, space, thread, task and day: counted in memory, written in the background, never on the way of an answer.

Durable up to the last ``usage_flush_seconds``; everything on an orderly stop. A failed write keeps its rows for the next one. What waits is bounded:
past :data:`MAX_PENDING` rows new threads and tasks are counted without their names, nothing is lost.

Several replicas on one database each add their own rows, so accounts are right; quotas of one learn of the others' spending within
:data:`RECOUNT_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from appliance.contracts.llm.v1.api import Usage
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway.domain import NO_PRICES, Prices, UsageQuery, UsageRow, UsageTotal
from services.gateway.ports import UsageStore
from services.gateway.quotas import Quotas

MAX_PENDING: Final = 20_000
RECOUNT_SECONDS: Final = 60.0
_DAY_SECONDS: Final = 86_400
_MOST_TOKENS: Final = 2**31 - 1
_MOST_COST_NANO: Final = 2**53
_NANO_PER_TOKEN: Final = 1000  # of a price per million tokens
_log = get_logger(__name__)


class Billed(NamedTuple):
    """To whom and what a request is counted; see ``UsageRow``. A tuple, because it is the key of a dictionary on the hot path."""

    subject: str
    account: str = ""
    model: str = ""
    space: str = ""
    thread: str = ""
    task: str = ""


_Key = tuple[Billed, int]


class UsageAccounts:
    """``count`` on the hot path; ``run`` as a background task; ``flush`` at the end.

    Args:
        store: where rows go.
        flush_seconds: how often.
        prices: of a model by alias.
        quotas: learn what is spent; None = there are none.
    """

    def __init__(
        self, store: UsageStore, flush_seconds: float, prices: Callable[[str], Prices] = lambda _alias: NO_PRICES, quotas: Quotas | None = None
    ) -> None:
        self._store = store
        self._flush_seconds = flush_seconds
        self._prices = prices
        self._quotas = quotas
        self._pending: dict[_Key, list[int]] = {}
        self._writing = asyncio.Lock()

    def count(self, subject: str, usage: Usage, billed: Billed | None = None, *, cached: bool = False, tool_calls: int = 0) -> None:
        """Add one request of ``subject`` to today's account.

        Args:
            subject: the caller.
            usage: what the answer cost, or would have cost when it is ``cached``.
            billed: the account in detail; None = the subject alone.
            cached: the answer came from the box's cache.
            tool_calls: tools that the box ran.
        """
        key = (billed if billed is not None else Billed(subject, subject), int(time.time()) // _DAY_SECONDS)
        row = self._pending.get(key)
        if row is None:
            if len(self._pending) >= MAX_PENDING:
                key = (key[0]._replace(thread="", task=""), key[1])
            row = self._pending.setdefault(key, [0] * 8)
        prompt = max(0, min(usage.prompt_tokens, _MOST_TOKENS))
        completion = max(0, min(usage.completion_tokens, _MOST_TOKENS))
        row[0] += 1
        row[6] += max(0, min(tool_calls, _MOST_TOKENS))
        tokens = cost = 0
        if cached:
            row[4] += prompt + completion
            row[5] += 1
        else:
            engine_cached = max(0, min(usage.cached_tokens, prompt))
            tokens = prompt + completion
            cost = cost_nano(prompt, completion, engine_cached, self._prices(key[0].model))
            row[1] += prompt
            row[2] += completion
            row[3] += engine_cached
            row[7] += cost
        if self._quotas is not None:
            self._quotas.spend(key[0].account, key[0].space, key[1], 1, tokens, cost)

    async def run(self) -> None:
        """Write every ``flush_seconds`` until cancelled; from time to time learn what is spent from the store, first of all at the start."""
        recounted = -RECOUNT_SECONDS
        while True:
            try:
                if self._quotas is not None and time.monotonic() - recounted >= RECOUNT_SECONDS:
                    await self.recount()
                    recounted = time.monotonic()
                else:
                    await self.flush()
            except ApplianceError as error:
                _log.warning("usage_flush_failed", code=error.code, error=error.message)
            except Exception:
                _log.exception("usage_flush_failed")
            await asyncio.sleep(self._flush_seconds)

    async def recount(self) -> None:
        """Bring the quotas to what the store says and what waits to be written; read their file again when it has changed."""
        if self._quotas is None:
            return
        await asyncio.to_thread(self._quotas.refresh)
        async with self._writing:
            await self._flush()
            if not self._quotas.rules:
                return
            month = time.strftime("%Y-%m-01", time.gmtime())
            rows = await self._store.spent(month)
            self._quotas.start_again(rows)
            for (billed, day), counts in self._pending.items():  # what came while the store was read
                self._quotas.spend(billed.account, billed.space, day, counts[0], counts[1] + counts[2], counts[7])

    async def flush(self) -> None:
        """Write what has been counted; a row that the store chokes on is dropped and logged, so that it does not hold up the others.

        Raises:
            ApplianceError: the store cannot write at all; everything is kept for the next time.
        """
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
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
                _log.exception("usage_row_dropped", subject=key[0].subject, day=key[1], counts=counts)
            except BaseException:
                self._keep(pending)
                raise
            del pending[key]

    def _keep(self, pending: dict[_Key, list[int]]) -> None:
        for (billed, day), counts in pending.items():
            key = (billed, day)
            if key not in self._pending and len(self._pending) >= MAX_PENDING:
                key = (billed._replace(thread="", task=""), day)
            row = self._pending.setdefault(key, [0] * 8)
            self._pending[key] = [old + new for old, new in zip(row, counts, strict=True)]

    async def read(self, subject: str, days: int) -> list[UsageRow]:
        """Days of ``subject``, the last ``days`` of them, today included, oldest first; without the last seconds when they cannot be written."""
        await self._flushed_if_possible()
        return list(await self._store.read(subject, day_before(days - 1)))

    async def totals(self, query: UsageQuery) -> list[UsageTotal]:
        """Sums by group; without the last seconds when they cannot be written."""
        await self._flushed_if_possible()
        return list(await self._store.totals(query))

    async def _flushed_if_possible(self) -> None:
        try:
            await self.flush()
        except Exception as error:
            _log.warning("usage_flush_failed", error=str(error))


def counted_space(spaces: tuple[str, ...] | None) -> str:
    """The space that a turn is counted for: its only one, ``*`` for several (or all), "" for none."""
    if spaces is None or len(spaces) > 1:
        return "*"
    return spaces[0] if spaces else ""


def cost_nano(prompt_tokens: int, completion_tokens: int, cached_tokens: int, prices: Prices) -> int:
    """Cost in 1e-9 of the currency; ``cached_tokens`` are part of ``prompt_tokens``."""
    if prices is NO_PRICES:
        return 0
    per_cached = prices.prompt if prices.cached is None else prices.cached
    cost = (prompt_tokens - cached_tokens) * prices.prompt + cached_tokens * per_cached + completion_tokens * prices.completion
    return min(_MOST_COST_NANO, max(0, round(cost * _NANO_PER_TOKEN)))


def day_before(days: int) -> str:
    """ISO day (UTC) that many days ago."""
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * _DAY_SECONDS))


def _row(key: _Key, counts: list[int]) -> UsageRow:
    billed, day = key
    return UsageRow(
        billed.subject, time.strftime("%Y-%m-%d", time.gmtime(day * _DAY_SECONDS)), counts[0], counts[1], counts[2],
        billed.account, billed.model, billed.space, billed.thread, billed.task, *counts[3:],
    )  # fmt: skip
