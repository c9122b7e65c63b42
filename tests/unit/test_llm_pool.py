"""A pool of replicas over real sockets: balanced, retried where safe, cut off, hedged, shed; whatever an upstream does, a request ends in time and in our words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from appliance.testing.check_chat_model import Subject, Wanted, check_chat_model
from appliance.testing.scripted_openai import Mode, Script
from services.llm.pool import metrics
from services.llm.pool.timing import Timing
from services.llm.settings import LlmSettings
from tests.unit.llm_bed import PATIENT, QUICK, Heard, TestClock, count, hear, pool_over, until
from tests.unit.test_openai_chat_model import script_for

BUSY = Script(mode="error_status", status=429, retry_after="2")
BROKEN = Script(mode="error_status", status=500)
STREAMING = Script(mode="stall")
FIRST_FIRST = Timing(uniform=lambda low, _high: low)  # of equally busy replicas the first
NO_BREAKER = PATIENT.model_copy(update={"breaker_failures": 10**6, "breaker_least_results": 10**6})


def patience(mode: Mode) -> LlmSettings:
    return QUICK if mode in {"hang", "stall"} else PATIENT


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_pool_keeps_the_promises_of_a_chat_model(replicas: int) -> None:
    @asynccontextmanager
    async def subject(wanted: Wanted) -> AsyncIterator[Subject]:
        async with pool_over(*[script_for(wanted)] * replicas) as bed:

            async def stopped() -> None:
                await until(lambda: any(upstream.departures for upstream in bed.upstreams))

            yield Subject(bed.pool, stopped)

    await check_chat_model(subject)


async def test_a_hedging_pool_keeps_the_promises_of_a_chat_model() -> None:
    @asynccontextmanager
    async def subject(wanted: Wanted) -> AsyncIterator[Subject]:
        async with pool_over(script_for(wanted), script_for(wanted), hedge_after_seconds=0.0005) as bed:

            async def stopped() -> None:
                await until(lambda: not any(upstream.active for upstream in bed.upstreams))

            yield Subject(bed.pool, stopped)

    await check_chat_model(subject)


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("hang", "upstream_timeout"), ("stall", "upstream_timeout"), ("reset", "upstream_failed"), ("garbage", "upstream_failed"),
        ("wrong_type", "upstream_failed"), ("invalid_utf8", "upstream_failed"), ("endless_line", "upstream_failed"), ("error_midway", "upstream_failed"),
        ("no_finish", "upstream_failed"), ("refuse", "upstream_failed"), ("short_length", "upstream_failed"),
    ],
)  # fmt: skip
async def test_a_hostile_upstream_ends_in_our_words_and_is_not_asked_again_once_it_spoke(mode: Mode, code: str) -> None:
    async with pool_over(Script(mode=mode, pieces=("a", "b", "c")), Script(mode=mode, pieces=("a", "b", "c")), settings=patience(mode)) as bed:
        heard = await hear(bed.pool)
        assert heard.code == code
        assert all(replica.outstanding == 0 for replica in bed.pool.replicas)
        if heard.text:
            assert "abc".startswith(heard.text)
            assert sum(bed.asked) == 1


async def test_nothing_is_tried_again_after_the_first_token() -> None:
    """Whatever comes after it, and whether or not a second replica is raced: the text is that of one answer, in one piece."""
    modes: tuple[Mode, ...] = ("reset", "stall", "garbage", "invalid_utf8", "error_midway", "no_finish")
    for mode in modes:
        for hedge in (0.0, 10.0):
            async with pool_over(
                Script(("x", "y"), mode=mode), Script(("x", "y"), mode=mode), settings=patience(mode), hedge_after_seconds=hedge
            ) as bed:
                heard = await hear(bed.pool)
                assert (heard.text[:1] in {"", "x"}, heard.text in {"", "x", "xy"}) == (True, True)
                assert sum(bed.asked) == 1, mode
                assert heard.error is not None


@pytest.mark.parametrize("script", [Script(mode="refuse"), *(Script(mode="error_status", status=status) for status in (429, 502, 503, 504))])
async def test_what_is_safe_to_try_again_is_answered_by_another_replica(script: Script) -> None:
    async with pool_over(script, script, alias="safe") as bed:
        bed.upstreams[1].script = Script()
        for _ in range(6):
            heard = await hear(bed.pool)
            assert (heard.text, heard.code) == ("Hello world", "ok")
        assert bed.asked[1] == 6


async def test_a_replica_that_nobody_listens_at_is_passed_over() -> None:
    async with pool_over(Script(), Script()) as bed:
        bed.upstreams[0].die()
        assert [(await hear(bed.pool)).code for _ in range(6)] == ["ok"] * 6


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (BROKEN, "upstream_failed"),
        (Script(mode="error_status", status=400), "invalid_request"),
        (Script(mode="error_status", status=400, error={"message": "x", "code": "context_length_exceeded"}), "context_length_exceeded"),
        (Script(mode="hang"), "upstream_timeout"),
    ],
)
async def test_what_may_have_done_work_or_is_the_callers_fault_is_asked_once(script: Script, code: str) -> None:
    async with pool_over(script, script, settings=patience(script.mode)) as bed:
        assert (await hear(bed.pool)).code == code
        assert sum(bed.asked) == 1


async def test_an_upstream_is_left_alone_for_as_long_as_it_asks() -> None:
    clock = TestClock()
    settings = PATIENT.model_copy(update={"longest_backoff_seconds": 5.0})
    async with pool_over(BUSY, settings=settings, timing=clock.timing()) as bed:
        bed.upstreams[0].upcoming.append(BUSY)
        bed.upstreams[0].script = Script()
        assert (await hear(bed.pool)).code == "ok"
        assert clock.slept[0] == pytest.approx(2, abs=0.01)
        assert bed.asked == [2]


async def test_a_wait_that_is_longer_than_the_deadline_or_the_limit_is_not_begun() -> None:
    clock = TestClock()
    for seconds, deadline in ((5.0, time.monotonic() + 1), (0.01, None)):
        async with pool_over(BUSY, settings=PATIENT.model_copy(update={"longest_backoff_seconds": seconds})) as bed:
            heard = await hear(bed.pool, deadline=deadline)
            assert heard.code == "overloaded"
            assert heard.error is not None
            assert heard.error.context["retry_after_seconds"] == 2
            assert (bed.asked, clock.slept) == ([1], [])
            again = await hear(bed.pool)  # it rests: it is not even asked
            assert (again.code, bed.asked) == ("overloaded", [1])


async def test_while_one_rests_the_other_is_asked() -> None:
    async with pool_over(BUSY, Script()) as bed:
        assert [(await hear(bed.pool)).code for _ in range(8)] == ["ok"] * 8
        assert bed.asked[0] <= 1
        assert bed.asked[1] == 8


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_storm_of_errors_is_not_answered_with_a_storm_of_requests(status: int) -> None:
    storm = Script(mode="error_status", status=status)
    async with pool_over(storm, storm, settings=NO_BREAKER) as bed:
        heard = await asyncio.gather(*(hear(bed.pool) for _ in range(100)))
        assert {one.code for one in heard} <= {"upstream_failed", "overloaded"}
        assert sum(bed.asked) <= 100 + 10 + QUICK.retry_reserve + 2


async def test_a_flapping_upstream_costs_no_answer_while_another_is_well() -> None:
    async with pool_over(Script(), Script(), settings=PATIENT.model_copy(update={"retry_reserve": 100})) as bed:
        bed.upstreams[0].upcoming.extend(Script(mode="refuse") if number % 2 else Script() for number in range(40))
        assert [(await hear(bed.pool)).code for _ in range(40)] == ["ok"] * 40


async def test_a_broken_upstream_is_cut_off_then_probed_by_one_request_and_taken_back() -> None:
    clock = TestClock()
    async with pool_over(BROKEN, timing=clock.timing(), alias="cut-off") as bed:
        upstream, replica = bed.upstreams[0], bed.pool.replicas[0]
        assert [(await hear(bed.pool)).code for _ in range(7)] == ["upstream_failed"] * 5 + ["unavailable"] * 2
        assert bed.asked == [5]
        refused = (await hear(bed.pool)).error
        assert refused is not None
        assert refused.context["retry_after_seconds"] in range(1, 8)
        assert "500" in refused.message, "the cause is told"
        assert metrics.breaker_state.labels("cut-off", upstream.url)._value.get() == 2
        clock.seconds += 7
        upstream.script = Script(("probe",), delay_seconds=0.1, endless=True)
        probe = Heard()
        probing = asyncio.create_task(hear(bed.pool, heard=probe))
        await until(lambda: len(upstream.requests) == 6)
        others = await asyncio.gather(*(hear(bed.pool) for _ in range(5))) if not probe.begun.is_set() else []
        assert {one.code for one in others} <= {"unavailable"}
        await until(probe.begun.is_set)
        assert replica.breaker.state == "closed"
        upstream.script = Script()
        assert (await hear(bed.pool)).code == "ok"
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        assert replica.outstanding == 0


async def test_an_upstream_that_dies_in_the_middle_again_and_again_is_cut_off() -> None:
    async with pool_over(Script(mode="reset")) as bed:
        codes = [(await hear(bed.pool)).code for _ in range(6)]
        assert codes == ["upstream_failed"] * 5 + ["unavailable"]


async def test_the_hurry_of_a_caller_does_not_cut_an_upstream_off() -> None:
    async with pool_over(Script(mode="hang"), settings=PATIENT) as bed:
        heard = await asyncio.gather(*(hear(bed.pool, deadline=time.monotonic() + 0.05) for _ in range(8)))
        assert {one.code for one in heard} == {"upstream_timeout"}
        assert bed.pool.replicas[0].breaker.state == "closed"


async def test_the_callers_own_errors_and_busy_answers_do_not_cut_an_upstream_off() -> None:
    for script in (Script(mode="error_status", status=400), Script(mode="error_status", status=429)):
        async with pool_over(script) as bed:
            for _ in range(12):
                await hear(bed.pool)
            assert bed.pool.replicas[0].breaker.state == "closed"


async def test_a_thread_meets_the_same_replica_and_threads_are_spread() -> None:
    async with pool_over(Script(), Script(), Script()) as bed:
        homes = []
        for thread in range(12):
            before = bed.asked
            for _ in range(3):
                assert (await hear(bed.pool, affinity=f"thread-{thread}")).code == "ok"
            moved = [now - then for now, then in zip(bed.asked, before, strict=True)]
            assert sorted(moved) == [0, 0, 3], "one replica for the whole thread"
            homes.append(moved.index(3))
        assert len(set(homes)) > 1


async def test_streams_are_spread_evenly_and_given_back() -> None:
    async with pool_over(*[STREAMING] * 3) as bed:
        streams = [asyncio.create_task(hear(bed.pool)) for _ in range(30)]
        await until(lambda: sum(upstream.active for upstream in bed.upstreams) == 30)
        assert bed.asked == [10, 10, 10]
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        assert [replica.outstanding for replica in bed.pool.replicas] == [0, 0, 0]
        await until(lambda: not any(upstream.active for upstream in bed.upstreams))


async def test_a_replica_that_fails_its_checks_is_passed_over_until_it_passes_them() -> None:
    settings = PATIENT.model_copy(update={"health_interval_seconds": 0.02})
    async with pool_over(Script(mode="error_status", status=503), Script(), settings=settings) as bed:
        sick, well = bed.pool.replicas
        await until(lambda: not sick.is_healthy)
        assert well.is_healthy
        assert [(await hear(bed.pool)).code for _ in range(6)] == ["ok"] * 6
        assert bed.asked[0] == 0
        bed.upstreams[0].script = Script()
        await until(lambda: sick.is_healthy)


async def test_when_all_fail_their_checks_they_are_asked_all_the_same() -> None:
    async with pool_over(Script(), Script()) as bed:
        for replica in bed.pool.replicas:
            replica.checked("no")
            replica.checked("no")
        assert (await hear(bed.pool)).code == "ok"


async def test_a_slow_replica_is_raced_and_the_loser_is_closed() -> None:
    async with pool_over(Script(mode="hang"), Script(), timing=FIRST_FIRST, hedge_after_seconds=0.03, alias="raced") as bed:
        for _ in range(4):
            heard = await hear(bed.pool)
            assert (heard.text, heard.code) == ("Hello world", "ok")
        assert bed.asked == [4, 4]
        assert count(metrics.hedges, "raced", "won") == 4
        await until(lambda: bed.upstreams[0].departures == 4)
        assert [replica.outstanding for replica in bed.pool.replicas] == [0, 0]
        assert [replica.breaker.state for replica in bed.pool.replicas] == ["closed", "closed"]


async def test_a_race_that_both_lose_ends_with_an_error_and_a_quick_failure_is_not_waited_for() -> None:
    async with pool_over(Script(mode="hang"), Script(mode="hang"), settings=QUICK, hedge_after_seconds=0.02) as bed:
        assert (await hear(bed.pool)).code == "upstream_timeout"
        assert bed.asked == [1, 1]
    async with pool_over(BROKEN, BROKEN, hedge_after_seconds=30) as bed:
        assert (await hear(bed.pool)).code == "upstream_failed"


async def test_races_are_paid_from_the_budget() -> None:
    settings = QUICK.model_copy(update={"retry_reserve": 0, "retry_share": 0.0})
    async with pool_over(Script(mode="hang"), Script(mode="hang"), settings=settings, hedge_after_seconds=0.02) as bed:
        assert (await hear(bed.pool)).code == "upstream_timeout"
        assert sum(bed.asked) == 1


async def test_leaving_a_race_closes_both_replicas() -> None:
    async with pool_over(Script(mode="hang"), Script(mode="hang"), settings=PATIENT, hedge_after_seconds=0.02) as bed:
        asking = asyncio.create_task(hear(bed.pool))
        await until(lambda: bed.asked == [1, 1])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: [upstream.departures for upstream in bed.upstreams] == [1, 1])
        assert [replica.outstanding for replica in bed.pool.replicas] == [0, 0]


async def test_more_than_fit_are_shed_at_once_and_told_when_to_come_again() -> None:
    settings = PATIENT.model_copy(update={"max_waiting": 2, "max_wait_seconds": 0.2})
    async with pool_over(STREAMING, settings=settings, max_parallel=3, alias="full") as bed:
        inside = [asyncio.create_task(hear(bed.pool)) for _ in range(3)]
        await until(lambda: bed.upstreams[0].active == 3)
        heard = await asyncio.gather(*(hear(bed.pool) for _ in range(6)))
        assert [one.code for one in heard] == ["overloaded"] * 6
        assert all(one.error is not None and one.error.context["retry_after_seconds"] == 1 for one in heard)
        assert (count(metrics.shed, "full", "queue_full"), count(metrics.shed, "full", "queue_timeout")) == (4, 2)
        assert bed.asked == [3]
        for stream in inside:
            stream.cancel()
        await asyncio.gather(*inside, return_exceptions=True)
        bed.upstreams[0].script = Script()
        assert (await hear(bed.pool)).code == "ok"


async def test_health_is_that_of_the_best_replica() -> None:
    async with pool_over(BROKEN, Script()) as bed:
        await bed.pool.health()
