"""Snapshots and retention: a start from a snapshot, from an older one, or from the log alone comes to the same, whatever was compacted and dropped."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, StepRecord, TaskError, TaskStatus
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator import retention as retention_module
from services.orchestrator import snapshot_files as files
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.projection import Projection
from services.orchestrator.replica import Replica
from services.orchestrator.retention import Retention
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.snapshots import KEPT, Snapshots
from services.orchestrator.task_checkpoints import TaskCheckpoints
from tests.unit.orchestrator.schedule_bed import Clock, following

DAY = 86_400.0
SAMPLE = Path(__file__).parents[2] / "replay" / "snapshots" / "v1"


class Box:
    """A replica that starts from what the stores have."""

    def __init__(self, log: MemoryEventLog, store: MemoryObjectStore, clock: Clock, **limits) -> None:
        self.log, self.store, self.clock = log, store, clock
        keep_terminal = limits.pop("keep_terminal", 1000)
        options = OrchestratorSettings(**limits)
        self.seconds = 0.0
        self.replica = Replica(log, Projection(keep_terminal), "r", clock)
        self.snapshots = Snapshots(self.replica, log, store, options, {"notes": lambda: ["n"]}, lambda: self.seconds)
        self.checkpoints = TaskCheckpoints(self.replica, store, 1_000_000, 10)
        self.retention = Retention(self.replica, log, self.snapshots, self.checkpoints, options)
        self.annexes: dict = {}

    @property
    def tasks(self) -> dict:
        return self.replica.projection.tasks

    async def make(self, task_id: str, **fields) -> None:
        created = ev.TaskCreated(**{"type": "t", "space": "lab", "owner": "user:anna"} | fields)
        await self.replica.execute(task_id, "lab", cm.Create(created=created), by="user:anna")

    async def claim(self, task_id: str) -> int:
        command = cm.Assign(executor="e_1", incarnation=1, lease_until=self.clock() + 60, dependencies_met=True)
        return (await self.replica.execute(task_id, None, command, by="executor:e_1")).token

    async def complete(self, task_id: str, result: bytes = b"1") -> None:
        token = await self.claim(task_id)
        await self.replica.execute(task_id, None, cm.Complete(token=token, result=msgspec.Raw(result)), by="executor:e_1")

    async def caught_up(self) -> None:
        async with asyncio.timeout(5):
            while self.replica.projection.position < await self.log.last_sequence():
                await asyncio.sleep(0)

    async def write(self, times: int = 1) -> None:
        await self.caught_up()
        for _ in range(times):
            self.clock.time += 0.01
            await self.snapshots.write()

    async def known(self) -> tuple:
        """What must be the same on every replica."""
        projection = self.replica.projection
        return (
            dict(sorted(projection.tasks.items())), projection.executors, projection.spaces, projection.open_count, projection.open_by_space,
            {key: set(value) for key, value in projection.held.items()}, projection.unmet,
        )  # fmt: skip


async def started(log: MemoryEventLog, store: MemoryObjectStore, clock: Clock, **limits) -> Box:
    box = Box(log, store, clock, **limits)
    box.annexes = await box.snapshots.restore()
    return box


async def test_a_start_from_a_snapshot_reads_only_the_tail_and_knows_the_same() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock)
    async with following(box):
        await everything(box)
        await box.write()
        await box.make("t_later", dependencies=("t_1", "t_open"))
        await box.caught_up()
        again = await started(log, store, clock)
        assert again.replica.projection.position > 0
        assert again.annexes == {"notes": msgspec.Raw(b'["n"]')}
        async with following(again):
            assert await again.known() == await box.known()


async def everything(box: Box) -> None:
    """Tasks in many states, an executor, a space."""
    registered = ev.ExecutorRegistered(type=ExecutorType.ALGORITHMIC, capabilities=ExecutorCapabilities(supported_task_types=("*",)))
    await box.replica.change_executor("e_1", lambda _state: (registered,), by="e_1")
    await box.replica.change_space("lab", lambda _state: (ev.PolicyChanged(action="mail.*", mode="ASK"),), by="user:olga")
    await box.make("t_1", output_schema=msgspec.Raw(b'{"type": "number"}'))
    await box.complete("t_1", b'{"x": "\xc3\xa9"}')
    await box.make("t_open", dependencies=("t_1",))
    await box.make("t_waits", dependencies=("t_open",))
    await box.make("t_held")
    token = await box.claim("t_held")
    await box.replica.execute(
        "t_held", None, cm.Report(token=token, lease_until=1e10, steps=(StepRecord(name="s", result=msgspec.Raw(b"{}")),)), by="e_1"
    )
    await box.checkpoints.save("t_held", token, msgspec.Raw(b'{"at": 1}'), msgspec.Raw(b"[]"), msgspec.Raw(b"[]"), by="e_1")
    await box.make("t_failed")
    await box.replica.execute("t_failed", None, cm.Cancel(), by="user:anna")


@pytest.mark.parametrize("broken", ["chunk", "manifest", "gone", "text"])
async def test_a_damaged_snapshot_is_skipped_and_the_one_before_is_used(broken: str) -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock)
    async with following(box):
        await everything(box)
        await box.write()
        first = await box.snapshots.newest()
        await box.make("t_2")
        await box.write()
        newest = sorted(await store.names("snapshot/"))[-1].rpartition("/")[0]
        if broken == "gone":
            await store.delete(f"{newest}/00000")
        elif broken == "text":
            await store.put(f"{newest}/manifest", b'{"schema_version": 1}')
        else:
            store.damage(f"{newest}/{'00001' if broken == 'chunk' else 'manifest'}")
        again = await started(log, store, clock)
        assert again.replica.projection.position == first
        async with following(again):
            assert await again.known() == await box.known()


async def test_without_any_whole_snapshot_the_log_is_replayed() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock)
    async with following(box):
        await everything(box)
        await box.write(2)
        for name in await store.names("snapshot/"):
            store.damage(name)
        again = await started(log, store, clock)
        assert (again.replica.projection.position, again.annexes) == (0, {})
        async with following(again):
            assert await again.known() == await box.known()


async def test_a_snapshot_ahead_of_the_log_is_not_believed() -> None:
    store, clock = MemoryObjectStore(), Clock()
    box = await started(MemoryEventLog(), store, clock)
    async with following(box):
        await everything(box)
        await box.write()
    again = await started(MemoryEventLog(), store, clock)
    assert again.tasks == {}, "the log was put back to an older state: it is the truth"


async def test_a_snapshot_of_a_newer_release_is_skipped() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock)
    async with following(box):
        await everything(box)
        await box.write()
        name = sorted(await store.names("snapshot/"))[-1]
        value = msgspec.json.decode(await store.get(name))
        await store.put(name, msgspec.json.encode(value | {"schema_version": files.SCHEMA_VERSION + 1}))
        with pytest.raises(ApplianceError) as refused:
            await files.read(store, name.removesuffix("/manifest"))
        assert refused.value.code == "event_unknown"
        assert (await started(log, store, clock)).tasks == {}


async def test_large_snapshots_are_cut_into_chunks_and_work_goes_on_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 100_000)
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    box = await started(log, store, clock)
    async with following(box):
        for number in range(1500):
            await box.make(f"t_{number}", input_data=msgspec.Raw(b'{"text": "%s"}' % (b"x" * 200)))
        await box.caught_up()
        position = box.replica.projection.position
        writing = asyncio.create_task(box.snapshots.write())
        await asyncio.sleep(0)
        await box.complete("t_7")
        assert await writing == position, "what came meanwhile is not in it"
        assert len(await store.names("snapshot/")) > 4
        again = await started(log, store, clock)
        async with following(again):
            assert len(again.tasks) == 1500
            assert await again.known() == await box.known()


async def test_a_snapshot_is_due_by_time_by_events_and_by_bytes_and_never_without_news() -> None:
    clock = Clock()
    limits = {"snapshot_seconds": 100, "snapshot_events": 5, "snapshot_bytes": 5_000}
    box = await started(MemoryEventLog(), MemoryObjectStore(), clock, **limits)
    async with following(box):
        box.seconds = 1000
        assert not await box.snapshots.write_if_due(), "nothing has happened"
        await box.make("t_1")
        await box.caught_up()
        assert await box.snapshots.write_if_due(), "late"
        assert not await box.snapshots.write_if_due()
        for number in range(5):
            await box.make(f"t_n{number}")
        await box.caught_up()
        assert await box.snapshots.write_if_due(), "many events"
        await box.make("t_large", input_data=msgspec.Raw(b'{"x": "%s"}' % (b"y" * 6000)))
        await box.caught_up()
        assert await box.snapshots.write_if_due(), "many bytes"
        assert not await box.snapshots.write_if_due()


async def test_the_newest_three_are_kept_and_a_replica_counts_those_of_others() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()
    one, two = await started(log, store, clock), await started(log, store, clock)
    async with following(one, two):
        for number in range(5):
            await one.make(f"t_{number}")
            await one.write()
        await store.put("snapshot/00000000000000000001-00000000000001-dead/00000", b"half written long ago")
        await one.make("t_x")
        await one.write()
        names = await store.names("snapshot/")
        assert len([name for name in names if name.endswith("/manifest")]) == KEPT
        assert not [name for name in names if "dead" in name]
        await two.caught_up()
        two.seconds = 1e6
        assert not await two.snapshots.write_if_due(), "the other's is as new"


async def test_snapshots_of_the_first_version_are_read_for_ever() -> None:
    store = MemoryObjectStore()
    for path in SAMPLE.iterdir():
        await store.put(f"snapshot/{SAMPLE.name}/{path.name}", path.read_bytes())
    states = await files.read(store, f"snapshot/{SAMPLE.name}")
    assert sorted((task.id, task.status.value) for task in states.tasks) == [
        ("t_1", "completed"), ("t_failed", "failed"), ("t_held", "executing"), ("t_open", "pending"), ("t_waits", "pending"),
    ]  # fmt: skip
    assert {task.id: task.output_schema for task in states.tasks}["t_1"] == msgspec.Raw(b'{"type": "number"}')
    assert ([one.id for one in states.executors], [one.policies for one in states.spaces]) == (["e_1"], [{"mail.*": "ASK"}])
    assert states.annexes == {"notes": msgspec.Raw(b'["n"]')}


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
