"""What a task's model used is counted for the task's owner, under the alias of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import Usage
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.kit.sql import open_database
from appliance.testing.fakes_chat_model import ScriptedAnswer, ScriptedChatModel
from appliance.testing.fakes_orchestrator import RecordingContext, sample_task
from services.allinone.task_accounts import task_counter
from services.gateway.domain import Prices, UsageQuery
from services.gateway.sqlalchemy_usage import SqlAlchemyUsage
from services.gateway.tables import SCHEMA
from services.gateway.usage import UsageAccounts, day_before
from services.orchestrator.executors.local_llm import CurrentModel, LocalLlmExecutor

CATALOG = ModelCatalog((ModelSpec("llm", "default", "openai", endpoint="http://127.0.0.1:1/v1", model="qwen-small"),))


async def test_a_task_of_a_model_is_in_the_accounts_of_its_owner(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "box.db", SCHEMA)
    try:
        accounts = UsageAccounts(SqlAlchemyUsage(engine), 1, {"default": Prices(1.0, 2.0)}.__getitem__)
        model = ScriptedChatModel(ScriptedAnswer((("42",),), usage=Usage(100, 10, 40)))
        executor = LocalLlmExecutor(lambda: CurrentModel("qwen-small", model), counted=task_counter(accounts, lambda: CATALOG))
        done = sample_task("report")
        await executor.execute(done, RecordingContext())
        today = day_before(0)
        expected = {"task": done.id, "user": done.owner, "space": done.space, "model": "default"}
        for by, key in expected.items():
            (total,) = await accounts.totals(UsageQuery(today, today, by))  # type: ignore[arg-type]
            assert (total.key, total.requests, total.prompt_tokens, total.completion_tokens, total.cached_tokens) == (key, 1, 100, 10, 40)
            assert total.cost_nano == 120_000
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    "metrics", [{}, {"model": 5}, {"model": "x", "promptTokens": "many", "completionTokens": float("nan"), "cachedTokens": True}]
)
def test_odd_metrics_end_nothing(metrics: dict[str, object]) -> None:
    accounts = UsageAccounts(None, 1)  # type: ignore[arg-type]
    task_counter(accounts, lambda: CATALOG)(sample_task("report"), metrics)
    assert all(counts[1:] == [0] * 7 for counts in accounts._pending.values())
