"""Lost replies, refusals, races and delays between replicas that share one log in memory: the same promises, in milliseconds and in any order."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, RetryPolicy, TaskSpec, TaskStatus
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryLeases, MemoryObjectStore
from services.orchestrator.bootstrap import Stores, open_orchestrator
from services.orchestrator.ports import ExecutionFailedError, ExecutionResult
from services.orchestrator.settings import OrchestratorSettings
from tests.chaos.checker import check
from tests.chaos.effects import EffectExecutor, read_effects
from tests.chaos.record import Record
from tests.chaos.replica_process import driver

WAIT_SECONDS = 30.0


class StepExecutor:
    """Runs ``steps`` steps; ``before`` is called with (task, step) before each, to harm the log there."""

    kind = ExecutorType.ALGORITHMIC
    max_load = 256

    def __init__(self, before=None):
        self.before = before or (lambda _task, _step: None)
        self.ran: list[tuple[str, str]] = []

    async def execute(self, task, context):
        data = msgspec.json.decode(task.input_data)
        for number in range(data.get("steps", 2)):
            name = f"s{number}"
            if name in context.steps:
                continue
            self.before(task, name)
            self.ran.append((task.id, name))
            await context.record_step(name, msgspec.Raw(b'"%s"' % name.encode()))
            if task.attempt <= data.get("fail", 0):
                raise ExecutionFailedError("as planned")
        return ExecutionResult(msgspec.Raw(b'{"sum":0}'))

    def capabilities(self):
        return ExecutorCapabilities(supported_task_types=("chaos.steps",))

    async def status(self):
        return "steps"

    async def cancel(self, task_id):
        """Its claim's task is cancelled; that is enough."""


def settings(name, **changes):
    return OrchestratorSettings(replica=name, **({"lease_seconds": 0.4, "approval_seconds": 2.0, "attempt_seconds": 600.0} | changes))


@asynccontextmanager
async def house_of(log, count, adapters, *, leases=None, clocks=None, **changes):
    stores = Stores(log, MemoryObjectStore(), leases or MemoryLeases())
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_orchestrator(stores, settings(f"r{number}", **changes), adapters(number), **({"now": clocks[number]} if clocks else {}))
            )
            for number in range(count)
        ]


def spec(key, data=None, **changes):
    return TaskSpec(
        type="chaos.steps", space="alpha", key=key, input_data=msgspec.Raw(msgspec.json.encode(data or {})),
        retry=RetryPolicy(max_attempts=4, first_seconds=0.01, most_seconds=0.05), **changes,
    )  # fmt: skip


async def until_ended(house, ids, seconds=WAIT_SECONDS):
    for task_id in ids:
        task = await house.tasks.wait(driver(), task_id, seconds)
        assert task.status.is_terminal, f"{task_id} is {task.status}: {[event.name for event in await house.tasks.history(driver(), task_id)]}"


async def test_a_submission_that_is_sent_again_finds_its_task_whatever_has_become_of_it():
    """The second copy may be decided before its replica knows of the first; it must not try to assign the task once more."""
    log = MemoryEventLog()
    async with house_of(log, 3, lambda _: [StepExecutor()]) as houses:
        for round_ in range(20):
            specs = [spec(f"k{round_}"), spec(f"d{round_}", dependencies=(f"k{round_}",))]
            made = await asyncio.gather(*(house.tasks.submit(driver(), specs) for house in houses))
            assert len({tuple(task.id for task in one) for one in made}) == 1
        await until_ended(houses[0], [task.id for task in made[0]])
        again = await houses[1].tasks.submit(driver(), [spec("k0")])
        assert again[0].status is TaskStatus.COMPLETED
        assert check(await log.read("task.>"), Record(), []) == []


@pytest.mark.parametrize("harm", ["refuse", "lose_replies"])
async def test_a_claim_whose_log_was_away_goes_on_when_it_is_back(harm):
    """The executor lives and renews its lease: nobody else would end the claim."""
    log = MemoryEventLog()
    harmed: list[str] = []

    def before(task, step):
        if step == "s1" and not harmed:
            harmed.append(task.id)
            setattr(log, harm, 1)

    async with house_of(log, 1, lambda _: [StepExecutor(before)]) as (house,):
        (task,) = await house.tasks.submit(driver(), [spec("one", {"steps": 3})])
        await until_ended(house, [task.id], 10.0)
        assert (await house.tasks.get(driver(), task.id)).status is TaskStatus.COMPLETED
    assert check(await log.read("task.>"), Record(), []) == [] and harmed
