"""Retention: what leaves the log, when, and that any start still comes to the same."""

import asyncio

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, StepRecord, TaskError, TaskStatus
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator import retention as retention_module
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from tests.unit.orchestrator.retention_bed import DAY, Box, everything, started
from tests.unit.orchestrator.schedule_bed import Clock, following


async def test_old_ended_tasks_leave_log_memory_and_objects() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box, other = await started(log, store, clock, retention_days=10), await started(log, store, clock)
    async with following(box, other):
        await everything(box)
        token = box.tasks["t_held"].token
        await box.replica.execute("t_held", None, cm.Complete(token=token), by="e_1")
        assert await store.names("checkpoint/t_held/")
        clock.time += 11 * DAY
        await box.make("t_young")
        await box.complete("t_young")
        await box.write(3)
        assert await box.retention.round() == 2, "t_failed and t_held; t_1 stays, an open task depends on it"
        await box.caught_up()
        await other.caught_up()
        assert sorted(box.tasks) == sorted(other.tasks) == ["t_1", "t_open", "t_waits", "t_young"]
        assert await log.read("task.lab.t_held"), "entries stay until every snapshot covers the drop"
        await box.write(3)
        await box.retention.round()
        assert not await log.read("task.lab.t_held")
        assert not await store.names("checkpoint/t_held/")
        assert await box.replica.state("t_held") is None
        for again in (await started(log, store, clock), await started(log, MemoryObjectStore(), clock)):
            async with following(again):
                assert await again.known() == await box.known()


async def test_an_open_task_and_what_it_depends_on_stay() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, retention_days=1, max_log_bytes=1)
    async with following(box):
        await box.make("t_1")
        await box.complete("t_1")
        await box.make("t_open", dependencies=("t_1",))
        clock.time += 30 * DAY
        await box.write(3)
        assert await box.retention.round() == 0
        assert sorted(box.tasks) == ["t_1", "t_open"]


async def test_nothing_goes_that_the_snapshots_do_not_cover() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, retention_days=1)
    async with following(box):
        await box.make("t_1")
        await box.complete("t_1")
        clock.time += 30 * DAY
        await box.caught_up()
        assert await box.retention.round() == 0
        await box.write(1)
        assert await box.retention.round() == 0, "one snapshot alone may be damaged"
        await box.write(1)
        assert await box.retention.round() == 1


async def test_a_crowded_log_drops_the_oldest_ended_tasks_first_and_no_more_than_needed() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, max_log_bytes=100_000, keep_terminal=5)
    async with following(box):
        for number in range(30):
            await box.make(f"t_{number:02d}", input_data=msgspec.Raw(b'{"x": "%s"}' % (b"y" * 3000)))
            await box.complete(f"t_{number:02d}")
        before = (await log.extent()).size_bytes
        assert before > 100_000
        for _ in range(6):
            await box.write(3)
            await box.retention.round()
        assert 65_000 < (await log.extent()).size_bytes <= 80_000
        left = [number for number in range(30) if await box.replica.state(f"t_{number:02d}") is not None]
        assert left == list(range(left[0], 30)), "the oldest went, though they had left memory long ago"


async def test_a_long_task_is_compacted_and_its_entries_go_once_covered() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, compact_after_entries=20)
    async with following(box):
        await box.make("t_1")
        token = await box.claim("t_1")
        for number in range(30):
            await box.replica.execute("t_1", None, cm.Report(token=token, lease_until=1e10, progress=number / 100), by="e_1")
        await box.write(3)
        await box.retention.round()
        assert len(await log.read("task.lab.t_1")) == 33, "compacted, not purged: no snapshot covers the compaction"
        await box.replica.execute("t_1", None, cm.Report(token=token, lease_until=1e10, progress=0.5), by="e_1")
        await box.write(3)
        await box.retention.round()
        names = [msgspec.json.decode(entry.body)["events"][0]["name"] for entry in await log.read("task.lab.t_1")]
        assert names == ["Compacted", "ProgressReported"]
        assert box.tasks["t_1"].token == token
        for again in (await started(log, store, clock), await started(log, MemoryObjectStore(), clock)):
            async with following(again):
                assert again.tasks["t_1"] == box.tasks["t_1"]
                assert again.tasks["t_1"].progress == 0.5


async def test_a_space_with_many_firings_is_compacted() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, compact_after_entries=20)
    async with following(box):
        put = ev.ScheduleChanged(schedule="s", trigger=msgspec.Raw(b'{"everySeconds":1}'), spec=msgspec.Raw(b'{"type":"t"}'), owner="user:anna")
        await box.replica.change_space("lab", lambda _space: (put,), by="user:anna")
        for number in range(25):
            fired = ev.ScheduleFired(schedule="s", due=float(number), task=f"t_{number}")
            await box.replica.change_space("lab", lambda _space, fired=fired: (fired,), by="system:schedules")
        await box.retention.round()
        await box.write(3)
        await box.retention.round()
        assert len(await log.read("space.lab")) == 1
        for again in (await started(log, store, clock), await started(log, MemoryObjectStore(), clock)):
            async with following(again):
                assert again.replica.projection.space("lab") == box.replica.projection.space("lab")
                assert again.replica.projection.space("lab").schedules["s"].last_due == 24.0


async def test_an_executor_that_registers_again_and_again_does_not_fill_the_log() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock)
    async with following(box):
        await everything(box)
        for run in range(2, 40):
            again = ev.ExecutorRegistered(
                type=ExecutorType.ALGORITHMIC, capabilities=ExecutorCapabilities(), incarnation=run, owner="e_1", owned_since=1
            )
            await box.replica.change_executor("e_1", lambda _state, again=again: (again,), by="e_1")
        await box.retention.round()
        assert len(await log.read("executor.e_1")) == 39, "nothing goes that the snapshots do not cover"
        await box.write(3)
        await box.retention.round()
        assert len(await log.read("executor.e_1")) == 1
        for start in (await started(log, store, clock), await started(log, MemoryObjectStore(), clock)):
            async with following(start):
                assert await start.known() == await box.known()


async def test_a_task_reopened_while_it_is_dropped_is_kept_or_gone_never_half() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box, other = await started(log, store, clock, retention_days=1), await started(log, store, clock)
    async with following(box, other):
        await box.make("t_1")
        await box.replica.execute("t_1", None, cm.Cancel(), by="user:anna")
        await other.caught_up()
        clock.time += 5 * DAY
        await box.write(3)
        reopened, dropped = await asyncio.gather(
            other.replica.execute("t_1", None, cm.Reopen(), by="user:olga"), box.retention.round(), return_exceptions=True
        )
        if isinstance(reopened, ApplianceError):
            assert (reopened.code, dropped) == ("not_found", 1)
        else:
            assert (reopened.status, dropped) == (TaskStatus.PENDING, 0)
        await box.caught_up()
        assert await box.known() == await other.known()


async def test_a_task_killed_while_it_was_dropped_is_finished_by_another_replica() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, retention_days=1)
    async with following(box):
        await box.make("t_1")
        await box.complete("t_1")
        await box.make("t_2")
        clock.time += 5 * DAY
        await box.write(3)
        assert await box.retention.round() == 1
    other = await started(log, store, clock, retention_days=1)
    async with following(other):
        assert list(other.tasks) == ["t_2"]
        await other.write(3)
        await other.retention.round()
        assert not await log.read("task.lab.t_1")


async def test_a_reopened_task_that_had_left_memory_is_read_whole_by_every_replica() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box, other = await started(log, store, clock), await started(log, store, clock, keep_terminal=1)
    async with following(box, other):
        for name in ("t_1", "t_2", "t_3"):
            await box.make(name)
            await box.replica.execute(name, None, cm.Cancel(), by="user:anna")
        await other.caught_up()
        assert "t_1" not in other.tasks
        await box.replica.execute("t_1", None, cm.Reopen(), by="user:anna")
        await other.caught_up()
        assert other.tasks["t_1"] == box.tasks["t_1"]
        assert other.replica.projection.open_count == 1


async def test_a_replica_that_slept_through_the_drop_of_a_task_lets_go_of_it() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box, sleeper = await started(log, store, clock, retention_days=1), await started(log, store, clock)
    async with following(sleeper):
        await sleeper.make("t_1")
    async with following(box):
        await box.complete("t_1")
        clock.time += 5 * DAY
        await box.write(3)
        await box.retention.round()
        await box.write(3)
        await box.retention.round()
        assert not await log.read("task.lab.t_1")
    with pytest.raises(ApplianceError) as refused:
        await sleeper.claim("t_1")
    assert refused.value.code == "not_found"
    assert (sleeper.tasks, sleeper.replica.projection.open_count) == ({}, 0)


moves = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "make",
                "make",
                "depend",
                "claim",
                "step",
                "complete",
                "complete",
                "fail",
                "cancel",
                "pause",
                "resume",
                "reopen",
                "snapshot",
                "round",
                "days",
            ]
        ),
        st.integers(0, 7),
        st.integers(0, 7),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves=moves, crowded=st.booleans(), damaged=st.integers(0, 3))
def test_a_start_from_any_snapshot_and_from_the_log_alone_agree(moves: list, crowded: bool, damaged: int) -> None:
    asyncio.run(_agree(moves, crowded, damaged))


async def _agree(moves: list, crowded: bool, damaged: int) -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock, retention_days=3, compact_after_entries=4, max_log_bytes=2_000 if crowded else 10_000_000)
    async with following(box):
        for what, one, two in moves:
            clock.time += 1
            try:
                await _move(box, what, f"t_{one}", f"t_{two}")
            except ApplianceError as error:
                assert error.code in {"task_state", "not_found", "stale_claim", "conflict", "overloaded"}
        await box.caught_up()
        for name in sorted(name for name in await store.names("snapshot/") if name.endswith("manifest"))[::-1][:damaged]:
            store.damage(name)
        expected = await box.known()
        for again in (await started(log, store, clock), await started(log, MemoryObjectStore(), clock)):
            async with following(again):
                assert await again.known() == expected


async def _move(box: Box, what: str, task: str, other: str) -> None:
    state = box.tasks.get(task)
    token = state.token if state else 0
    error = TaskError(code="executor_failed", message="no")
    commands = {
        "step": cm.Report(token=token, lease_until=1e10, progress=0.5, steps=(StepRecord(name=other, result=msgspec.Raw(b"1")),)),
        "complete": cm.Complete(token=token), "fail": cm.Fail(token=token, error=error), "cancel": cm.Cancel(), "pause": cm.Pause(), "resume": cm.Resume(),
        "reopen": cm.Reopen(),
    }  # fmt: skip
    if what == "make":
        await box.make(task)
    elif what == "depend":
        if box.tasks.get(other) is not None and task not in box.tasks and task != other:
            await box.make(task, dependencies=(other,))
    elif what == "claim":
        await box.claim(task)
    elif what == "snapshot":
        await box.write()
    elif what == "round":
        await box.caught_up()
        await box.retention.round()
    elif what == "days":
        box.clock.time += 2 * DAY
    else:
        await box.replica.execute(task, None, commands[what], by="x")


def test_bounds_of_a_round_are_there() -> None:
    assert retention_module.MOST_DROPPED <= 1000 and retention_module.MOST_READ <= 100_000
