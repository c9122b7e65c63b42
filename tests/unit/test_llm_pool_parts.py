"""Breaker, retry budget, bulkhead and balancing, each alone and on a clock of the test's own."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import pytest

from appliance.kit.errors import ApplianceError
from services.llm.pool.balancing import LOAD_SLACK, choose
from services.llm.pool.breaker import BreakerLimits, CircuitBreaker, State
from services.llm.pool.bulkhead import Bulkhead
from services.llm.pool.retry_budget import RetryBudget
from services.llm.pool.timing import Timing

LIMITS = BreakerLimits(failures=3, error_share=0.5, least_results=10, window_seconds=10, open_seconds=4, longest_open_seconds=16)


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def timing(self) -> Timing:
        return Timing(now=lambda: self.seconds, uniform=lambda low, high: (low + high) / 2)


class Breaker(CircuitBreaker):
    """With the states that it told of."""

    def __init__(self, clock: Clock) -> None:
        self.told: list[State] = []
        super().__init__(LIMITS, clock.timing(), self.told.append)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.failed(self.begin())

    def succeed(self) -> None:
        self.succeeded(self.begin())


def state(breaker: CircuitBreaker) -> str:
    return breaker.state


def test_a_breaker_opens_after_failures_in_a_row_and_a_success_breaks_the_row() -> None:
    breaker = Breaker(Clock())
    breaker.fail(2)
    breaker.succeed()
    breaker.fail(2)
    assert state(breaker) == "closed"
    breaker.fail()
    assert state(breaker) == "open"
    assert not breaker.admits()
    assert breaker.told == ["open"]


def test_a_breaker_opens_when_half_of_the_results_failed_but_not_on_a_few() -> None:
    breaker = Breaker(Clock())
    for _ in range(4):
        breaker.succeed()
        breaker.fail()
    assert state(breaker) == "closed"
    breaker.succeed()
    breaker.fail()
    assert state(breaker) == "open"


def test_failures_of_long_ago_do_not_count() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(4):
        breaker.fail()
        breaker.succeed()
    clock.seconds += 11
    breaker.fail()
    breaker.succeed()
    assert state(breaker) == "closed"


def test_one_probe_at_a_time_and_its_first_sign_of_life_closes() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.fail(3)
    clock.seconds += 4
    assert state(breaker) == "half_open"
    probe = breaker.begin()
    assert not breaker.admits()
    breaker.left(probe)
    assert breaker.admits()
    breaker.alive(breaker.begin())
    assert breaker.told == ["open", "half_open", "closed"]


def test_a_failed_probe_opens_again_for_twice_as_long_up_to_the_longest() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.fail(3)
    for seconds in (4, 8, 16, 16):
        assert breaker.seconds_left == pytest.approx(seconds)
        clock.seconds += seconds
        assert state(breaker) == "half_open"
        breaker.fail()
    clock.seconds += 16
    breaker.succeed()
    breaker.fail(3)
    assert breaker.seconds_left == pytest.approx(4)


def test_what_was_sent_before_the_opening_decides_nothing_after_it() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    early = [breaker.begin() for _ in range(5)]
    breaker.fail(3)
    clock.seconds += 4
    assert state(breaker) == "half_open"
    breaker.failed(early[0])
    breaker.succeeded(early[1])
    assert state(breaker) == "half_open"
    breaker.begin()
    breaker.left(early[2])
    assert not breaker.admits(), "a late result freed the probe's place"


def test_a_budget_pays_a_share_of_the_requests_and_refills_slowly() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, 3, clock.timing())
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 95 <= spent <= 101
    clock.seconds += 20
    assert [budget.spend() for _ in range(2)] == [True, False]


@dataclass
class Node:
    name: str
    outstanding: int = 0


def test_without_affinity_the_least_busy_is_chosen_and_equals_share() -> None:
    nodes = [Node("a", 3), Node("b", 1), Node("c", 1)]
    chosen = [choose(nodes, "", random.Random(1).uniform).name for _ in range(10)]
    draw = random.Random(1)
    spread = [choose(nodes, "", draw.uniform).name for _ in range(200)]
    assert set(chosen) | set(spread) == {"b", "c"}
    assert 60 < spread.count("b") < 140


def test_a_thread_stays_and_only_those_of_a_lost_replica_move() -> None:
    nodes = [Node(f"http://gpu{number}/v1") for number in range(5)]
    before = {f"thread{number}": choose(nodes, f"thread{number}", random.uniform).name for number in range(500)}
    assert before == {thread: choose(nodes[::-1], thread, random.uniform).name for thread in before}
    assert all(60 < list(before.values()).count(node.name) < 140 for node in nodes)
    after = {thread: choose(nodes[1:], thread, random.uniform).name for thread in before}
    assert all(after[thread] == before[thread] for thread in before if before[thread] != nodes[0].name)


def test_a_preferred_replica_is_left_when_it_is_overloaded_against_the_least_loaded() -> None:
    nodes = [Node("a"), Node("b")]
    preferred = choose(nodes, "t", random.uniform)
    other = next(node for node in nodes if node is not preferred)
    preferred.outstanding = LOAD_SLACK
    assert choose(nodes, "t", random.uniform) is preferred
    preferred.outstanding = LOAD_SLACK + 1
    assert choose(nodes, "t", random.uniform) is other
    other.outstanding = 1
    assert choose(nodes, "t", random.uniform) is preferred


async def test_a_bulkhead_never_has_more_inside_and_sheds_what_does_not_fit_in_line() -> None:
    shed: list[str] = []
    bulkhead = Bulkhead(2, 3, 30, shed.append)
    inside = most = 0

    async def visit() -> str:
        nonlocal inside, most
        try:
            await bulkhead.enter(None)
        except ApplianceError as error:
            assert error.context["retry_after_seconds"] == 30
            return error.code
        inside += 1
        most = max(most, inside)
        for _ in range(5):
            await asyncio.sleep(0)
        inside -= 1
        bulkhead.leave()
        return "ok"

    results = await asyncio.gather(*(visit() for _ in range(9)))
    assert results == ["ok"] * 5 + ["overloaded"] * 4
    assert (most, shed) == (2, ["queue_full"] * 4)
    assert await visit() == "ok"


async def test_nobody_waits_in_line_past_the_limit_or_the_deadline() -> None:
    shed: list[str] = []
    for bulkhead, deadline in ((Bulkhead(1, 5, 0.05, shed.append), None), (Bulkhead(1, 5, 60, shed.append), time.monotonic() + 0.05)):
        await bulkhead.enter(None)
        async with asyncio.timeout(10):
            with pytest.raises(ApplianceError, match="overloaded"):
                await bulkhead.enter(deadline)
    assert shed == ["queue_timeout"] * 2


async def test_a_place_given_to_a_waiter_that_has_left_is_not_lost() -> None:
    bulkhead = Bulkhead(1, 5, 60, lambda _: None)
    await bulkhead.enter(None)
    waiter = asyncio.create_task(bulkhead.enter(None))
    await asyncio.sleep(0)
    bulkhead.leave()  # the place is given …
    waiter.cancel()  # … and the waiter leaves before it knows
    with pytest.raises(asyncio.CancelledError):
        await waiter
    async with asyncio.timeout(10):
        await bulkhead.enter(None)
