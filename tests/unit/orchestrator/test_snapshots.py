"""Snapshots: a start from one, from an older one, or from the log alone comes to the same; old ones are read for ever."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator import snapshot_files as files
from services.orchestrator.snapshots import KEPT
from tests.unit.orchestrator.retention_bed import everything, started
from tests.unit.orchestrator.schedule_bed import Clock, following

SAMPLE = Path(__file__).parents[2] / "replay" / "snapshots" / "v1"


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
