"""Tokens that tasks used, in the same accounts as those of chat turns: counted for the task's owner, in its space, under its id.

Owns: how the metrics of an attempt become a row. Does not own: the accounts (``services.gateway.usage``), the metrics (the executors). An attempt that
failed is not counted: its executor reports no metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from appliance.contracts.llm.v1.api import Usage
from appliance.contracts.orchestrator.v1.values import Task
from appliance.hub.model_spec import ModelCatalog
from services.gateway.usage import Billed, UsageAccounts


def task_counter(accounts: UsageAccounts, catalog: Callable[[], ModelCatalog]) -> Callable[[Task, Mapping[str, object]], None]:
    """What ``LocalLlmExecutor`` takes as ``counted``; microseconds, in memory.

    Args:
        accounts: an own instance over the same store is fine (``run`` it in the background, ``flush`` it at the end).
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
