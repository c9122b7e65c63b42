"""Lost replies, refusals, races and delays between replicas that share one log in memory: the same promises, in milliseconds and in any order."""

from __future__ import annotations

import asyncio
import random
import time
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
from tests.chaos.replica_process import agent, driver

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


class LateLog:
    """A log whose tail is held back: what another replica writes is seen when it is read, or when the test lets it come."""

    def __init__(self, log):
        self._log = log
        self.come = asyncio.Event()
        self.come.set()

    def __getattr__(self, name):
        return getattr(self._log, name)

    async def tail(self, after):
        async for batch in self._log.tail(after):
            await self.come.wait()
            yield batch


@asynccontextmanager
async def prompt_and_late(adapters=lambda _: [], **changes):
    """(house, house that lags, its log) on one log."""
    log, objects, leases = MemoryEventLog(), MemoryObjectStore(), MemoryLeases()
    late = LateLog(log)
    async with (
        open_orchestrator(Stores(log, objects, leases), settings("r0", **changes), adapters(0)) as first,
        open_orchestrator(Stores(late, objects, leases), settings("r1", **changes), adapters(1)) as second,
    ):
        yield first, second, late
        late.come.set()


async def test_a_replica_that_lags_does_not_refuse_what_another_has_made_possible():
    async with prompt_and_late() as (house, lagging, late):
        (task,) = await house.tasks.submit(driver(), [spec("one")])
        await lagging.replica.sync()
        late.come.clear()
        await house.control.pause(driver(), task.id)
        assert (await lagging.control.resume(driver(), task.id)).status is TaskStatus.PENDING
        assert (await house.control.pause(driver(), task.id)).status is TaskStatus.PAUSED


async def test_an_agent_may_report_to_another_replica_than_it_claimed_from():
    capabilities = ExecutorCapabilities(supported_task_types=("chaos.steps",))
    async with prompt_and_late(external_lease_seconds=30.0) as (house, lagging, late):
        (task,) = await house.tasks.submit(driver(), [spec("one")])
        await lagging.replica.sync()
        late.come.clear()
        await house.executors.register(agent(), "agent-1", ExecutorType.CLAUDE_OPUS, capabilities)
        claimed = await house.work.claim(agent(), "agent-1")
        assert claimed is not None and claimed.id == task.id
        asyncio.get_running_loop().call_later(0.2, late.come.set)
        await lagging.work.progress(agent(), task.id, claimed.fencing_token, 0.5)
        late.come.clear()
        request = await house.approvals.request(agent(), task.id, claimed.fencing_token, "chaos.write", msgspec.Raw(b'{"text":"x"}'))
        asyncio.get_running_loop().call_later(0.2, late.come.set)
        assert (await lagging.approvals.decide(driver(), request.id, "approve")).decided_by == driver().subject
        await house.work.complete(agent(), task.id, claimed.fencing_token, msgspec.Raw(b"1"))


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_is_wrong_keeps_nothing_for_ever_when_its_replica_dies(jump):
    """It promised to live for an hour more, held claims for as long, and put an attempt off for an hour."""
    log, objects, leases = MemoryEventLog(), MemoryObjectStore(), MemoryLeases()
    stores, never = Stores(log, objects, leases), asyncio.Event()

    class Stuck(StepExecutor):
        async def execute(self, task, context):
            if msgspec.json.decode(task.input_data).get("fail"):
                raise ExecutionFailedError("as planned")
            await never.wait()

    async with open_orchestrator(stores, settings("r0"), [Stuck()], now=lambda: time.time() + jump) as house:
        made = await house.tasks.submit(driver(), [spec("held"), spec("put off", {"fail": 1})])
        async with asyncio.timeout(WAIT_SECONDS):
            while (await house.tasks.get(driver(), made[1].id)).not_before is None and (await house.tasks.get(driver(), made[1].id)).attempt < 2:
                await asyncio.sleep(0.01)
    async with open_orchestrator(stores, settings("r1"), [StepExecutor()]) as house:
        begin = time.monotonic()
        await until_ended(house, [task.id for task in made], 10.0)
        assert time.monotonic() - begin < 5.0


async def test_a_replica_that_hears_nothing_takes_nobody_for_dead():
    """Its leases come no more (a cut network): the others live, and their claims must still be theirs when it hears again."""
    log, objects = MemoryEventLog(), MemoryObjectStore()
    leases, deaf = MemoryLeases(), DeafLeases()
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(StepExecutor):
        async def execute(self, task, context):
            begun.set()
            await go_on.wait()
            return await super().execute(task, context)

    slow = Slow()
    deaf.inner = leases
    async with (
        open_orchestrator(Stores(log, objects, leases), settings("r0"), [slow]) as house,
        open_orchestrator(Stores(log, objects, deaf), settings("r1")) as other,
    ):
        (task,) = await house.tasks.submit(driver(), [spec("one")])
        await begun.wait()
        await other.replica.sync()
        deaf.is_deaf = True
        await asyncio.sleep(1.5)  # several leases: nothing shall happen in them
        deaf.is_deaf = False
        await asyncio.sleep(1.0)
        go_on.set()
        await until_ended(house, [task.id])
        names = [event.name for event in await house.tasks.history(driver(), task.id)]
        assert "LeaseExpired" not in names, names


class DeafLeases:
    """Leases of a replica that may be cut off: it says and hears nothing then."""

    inner: MemoryLeases
    is_deaf = False

    async def renew(self, executor, incarnation, until):
        if self.is_deaf:
            raise ApplianceError("unavailable", "cut off")
        await self.inner.renew(executor, incarnation, until)

    async def watch(self):
        async for change in self.inner.watch():
            if not self.is_deaf:
                yield change


@pytest.mark.parametrize("seed", range(4))
async def test_many_replicas_and_a_log_that_loses_replies_refuses_and_parts_racers(seed, tmp_path):
    """Every kind of bad answer at random under 120 tasks in chains; then the checker reads the log."""
    rng, log, record = random.Random(seed), MemoryEventLog(), Record()
    path = tmp_path / "effects"

    async def harm():
        while True:
            what = rng.choice(("lose_replies", "refuse", "conflict", "delay", "none"))
            if what == "conflict":
                log.conflict_on = lambda _: rng.random() < 0.3
            elif what == "delay":
                log.gate = asyncio.Event()
            elif what != "none":
                setattr(log, what, rng.randrange(1, 6))
            await asyncio.sleep(rng.uniform(0.01, 0.1))
            log.conflict_on = None
            if log.gate is not None:
                log.gate.set()
                log.gate = None

    async with house_of(log, 4, lambda _: [StepExecutor(), EffectExecutor(path)]) as houses:
        harming = asyncio.create_task(harm())
        deciding = asyncio.create_task(decide_all(houses, rng, record))
        try:
            for number in range(0, 120, 6):
                specs = [
                    spec(f"k{number + at}", {"steps": 3, "fail": rng.choice((0, 0, 1))}, dependencies=(f"k{number + at - 1}",) if at else ())
                    for at in range(5)
                ]
                specs.append(
                    TaskSpec(type="chaos.effect", space="alpha", key=f"k{number + 5}", input_data=msgspec.Raw(b'{"effects":2,"decision":"approve"}'))
                )
                made = await persist(houses, rng, lambda house: house.tasks.submit(driver(), specs))
                record.submitted.update({one.key: task.id for one, task in zip(specs, made, strict=True)})
            for task_id in record.submitted.values():
                await persist(houses, rng, lambda house: until_ended(house, [task_id]))
        finally:
            harming.cancel()
            deciding.cancel()
            await asyncio.gather(harming, deciding, return_exceptions=True)
        log.conflict_on, log.refuse, log.lose_replies = None, 0, 0
        assert check(await log.read("task.>"), record, read_effects(path)) == []


async def persist(houses, rng, call):
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                return await call(rng.choice(houses))
            except ApplianceError as error:
                assert error.code in {"unavailable", "overloaded"}, error
            await asyncio.sleep(0.01)


async def decide_all(houses, rng, record):
    while True:
        for request in await houses[0].approvals.list(driver()):
            try:
                answer = await rng.choice(houses).approvals.decide(driver(), request.id, "approve")
                record.decisions[request.id] = str(answer.status)
            except ApplianceError as error:
                assert error.code in {"unavailable", "overloaded", "task_state", "not_found"}, error
        await asyncio.sleep(0.02)


async def test_a_repeated_completion_is_the_same_one_and_another_result_is_refused():
    capabilities = ExecutorCapabilities(supported_task_types=("chaos.steps",))
    async with house_of(MemoryEventLog(), 1, lambda _: [], external_lease_seconds=30.0) as (house,):
        (task,) = await house.tasks.submit(driver(), [spec("one")])
        await house.executors.register(agent(), "agent-1", ExecutorType.CLAUDE_OPUS, capabilities)
        claimed = await house.work.claim(agent(), "agent-1")
        for _ in range(2):
            await house.work.complete(agent(), task.id, claimed.fencing_token, msgspec.Raw(b"1"))
        with pytest.raises(ApplianceError) as caught:
            await house.work.complete(agent(), task.id, claimed.fencing_token, msgspec.Raw(b"2"))
        assert caught.value.code == "task_state"
        assert (await house.tasks.get(driver(), task.id)).result == msgspec.Raw(b"1")


async def test_executors_of_a_dead_replica_are_lost_though_they_held_nothing_and_come_back_with_it():
    log, objects, leases = MemoryEventLog(), MemoryObjectStore(), MemoryLeases()

    async def until(house, status):
        async with asyncio.timeout(WAIT_SECONDS):
            while {one.id: str(one.status) for one in await house.executors.list(driver())} != {"algorithmic@r0": status}:
                await asyncio.sleep(0.01)

    async with open_orchestrator(Stores(log, objects, leases), settings("r1")) as house:
        async with open_orchestrator(Stores(log, objects, leases), settings("r0"), [StepExecutor()]):
            await until(house, "online")
        await until(house, "lost")
        async with open_orchestrator(Stores(log, objects, leases), settings("r0"), [StepExecutor()]):
            await until(house, "online")
