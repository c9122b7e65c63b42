"""Tokens that tasks used, in the same accounts as those of chat turns: counted for the task's owner, in its space, under its id.

Owns: how the metrics of an attempt become a row. Does not own: the accounts (``services.gateway.usage``), the metrics (the executors). An attempt that
failed is not counted: its executor reports no metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from appliance.contracts.llm.v1.api import Usage
from appliance.contracts.orchestrator.v1.values import Task
from appliance.hub.model_spec import ModelCatalog
from appliance.kit.errors import ApplianceError
from services.allinone.model_cards import CatalogCards
from services.gateway.domain import NO_PRICES, Prices
from services.gateway.ports import UsageStore
from services.gateway.usage import Billed, UsageAccounts


@asynccontextmanager
async def open_task_accounts(store: UsageStore, flush_seconds: float, cards: CatalogCards) -> AsyncIterator[UsageAccounts]:
    """Accounts of their own over the store of the gateway, written while the box lives and once more at its end."""

    def prices(alias: str) -> Prices:
        try:
            return cards.card(alias, "chat").prices
        except ApplianceError:
            return NO_PRICES

    accounts = UsageAccounts(store, flush_seconds, prices)
    writing = asyncio.create_task(accounts.run(), name="task-accounts")
    try:
        yield accounts
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await accounts.flush()


def task_counter(accounts: UsageAccounts, catalog: Callable[[], ModelCatalog]) -> Callable[[Task, Mapping[str, object]], None]:
    """What ``LocalLlmExecutor`` takes as ``counted``; microseconds, in memory.

    Args:
        accounts: see :func:`open_task_accounts`.
        catalog: models in force; the executor names a model as its server does, accounts and prices go by alias.
    """

    def counted(task: Task, metrics: Mapping[str, object]) -> None:
        name = metrics.get("model")
        if not isinstance(name, str):
            return
        alias = next((spec.alias for spec in catalog().of_kind("llm") if name in {spec.model, spec.alias}), name)
        usage = Usage(_number(metrics, "promptTokens"), _number(metrics, "completionTokens"), _number(metrics, "cachedTokens"))
        accounts.count(task.owner, usage, Billed(task.owner, task.owner, alias[:200], task.space, "", task.id))

    return counted


def _number(metrics: Mapping[str, object], name: str) -> int:
    value = metrics.get(name, 0)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) < 2**53 else 0  # noqa: PLR0124 - NaN
