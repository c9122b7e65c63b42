"""Ready tasks and offers for the tests of the scheduler."""

import random

from appliance.contracts.orchestrator.v1.values import ExecutorType
from services.orchestrator.scheduling.ready_task import ExecutorOffer, ReadyTask

NOW = 1_800_000_000.0
ANYTHING = ExecutorOffer("e_any", ExecutorType.LOCAL_LLM, frozenset({"*"}))


def a_task(task_id: str, **fields) -> ReadyTask:
    values = {"space": "default", "type": "work", "enqueued_at": NOW, "created_at": NOW, **fields}
    return ReadyTask(id=task_id, **values)


def an_offer(*types: str, kind: ExecutorType = ExecutorType.LOCAL_LLM, **fields) -> ExecutorOffer:
    return ExecutorOffer(fields.pop("executor_id", "e_1"), kind, frozenset(types or ("*",)), **fields)


def random_task(dice: random.Random, task_id: str, *, spaces: int, types: int, dated: float, now: float = NOW) -> ReadyTask:
    """``dated``: share of tasks with a deadline."""
    return ReadyTask(
        id=task_id,
        space=f"space-{dice.randrange(spaces)}",
        type=f"type-{dice.randrange(types)}",
        enqueued_at=now - dice.uniform(0, 600),
        created_at=now,
        executor_type=dice.choice([None, None, ExecutorType.LOCAL_LLM]),
        priority=dice.randrange(101),
        deadline=now + dice.uniform(-60, 3600) if dice.random() < dated else None,
    )
