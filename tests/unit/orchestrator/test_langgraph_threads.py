"""Threads of LangGraph graphs on the fakes: what other processes wrote, what went wrong on the way, what is large."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

pytest.importorskip("langgraph.checkpoint.base", reason="needs the extra langgraph")

from langgraph.checkpoint.serde.types import INTERRUPT

from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator.langgraph import EventLogSaver, ThreadLog
from services.orchestrator.langgraph.thread_events import Blob, CheckpointPut, Write, WritesPut, encode, thread_subject, thread_token
from services.orchestrator.langgraph.thread_state import CheckpointKey, ThreadState
from services.orchestrator.langgraph.thread_values import EVENT_BYTES, INLINE_BYTES
from services.orchestrator.ports import Entry

THREAD = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class Bed:
    def __init__(self):
        self.log, self.objects = MemoryEventLog(), MemoryObjectStore()

    def saver(self, space="default", **options):
        return EventLogSaver(ThreadLog(self.log, self.objects, space, **options))


@pytest.fixture
def bed():
    return Bed()


async def put(saver, number, values=None, *, config=THREAD, **metadata):
    values = {"n": number} if values is None else values
    checkpoint = {
        "v": 4, "id": f"{number:04}", "ts": "2026-01-01T00:00:00+00:00", "channel_values": values, "channel_versions": dict.fromkeys(values, number),
        "versions_seen": {}, "updated_channels": None,
    }  # fmt: skip
    return await saver.aput(config, checkpoint, {"source": "loop", "step": number, "parents": {}, **metadata}, dict.fromkeys(values, number))


async def ids(saver, config=THREAD, **options):
    return [one.checkpoint["id"] async for one in saver.alist(config, **options)]


async def test_one_saver_sees_what_another_stored_and_deleted(bed):
    one, other = bed.saver(), bed.saver()
    await put(one, 1)
    assert await ids(other) == ["0001"]
    await put(other, 2)  # knows the newest entry
    await put(one, 3)  # does not: loses a race, reads and stores
    assert await ids(other) == await ids(one) == ["0003", "0002", "0001"]
    await other.adelete_thread("t")
    assert await ids(one) == []
    await put(one, 4)
    assert await ids(other) == ["0004"]


async def test_one_saver_sees_what_another_pruned(bed):
    one, other = bed.saver(), bed.saver()
    for number in (1, 2, 3):
        await put(one, number)
    await other.aprune(["t"])
    assert await ids(one) == ["0003"]
    assert len(await bed.log.read(thread_subject("default", "t"))) == 1


async def test_spaces_do_not_meet(bed):
    await put(bed.saver("a"), 1)
    assert await ids(bed.saver("b")) == []
    assert await ids(bed.saver("b"), None) == []
    assert await ids(bed.saver("a"), None) == ["0001"]


async def test_all_threads_are_listed_newest_first_with_filter_and_limit(bed):
    saver = bed.saver()
    for number in range(6):
        await put(saver, number, config={"configurable": {"thread_id": f"thread {number % 2}", "checkpoint_ns": ""}}, kind=number % 3)
    assert await ids(saver, None) == ["0005", "0004", "0003", "0002", "0001", "0000"]
    assert await ids(saver, None, filter={"kind": 1}, limit=1) == ["0004"]
    assert await ids(saver, None, before={"configurable": {"checkpoint_id": "0002"}}) == ["0001", "0000"]


async def test_a_lost_reply_is_told_and_the_call_may_be_repeated(bed):
    saver = bed.saver()
    await put(saver, 1)
    bed.log.lose_replies = 1
    with pytest.raises(ApplianceError) as caught:
        await put(saver, 2)
    assert caught.value.code == "unavailable"
    await put(saver, 2)
    assert await ids(saver) == ["0002", "0001"]


async def test_nothing_is_stored_when_the_log_is_away(bed):
    saver = bed.saver()
    bed.log.refuse = 1
    with pytest.raises(ApplianceError):
        await put(saver, 1)
    assert await ids(saver) == []


async def test_writes_that_wait_together_share_an_entry(bed):
    saver = bed.saver()
    config = await put(saver, 1)
    bed.log.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(saver.aput_writes(config, [("n", number)], f"task{number}"))
        await asyncio.sleep(0)
        bed.log.gate.set()
    assert len(bed.log.appended) <= 3
    assert len((await saver.aget_tuple(config)).pending_writes) == 20


async def test_a_write_that_is_given_up_takes_no_other_with_it(bed):
    saver = bed.saver()
    config = await put(saver, 1)
    bed.log.gate = asyncio.Event()
    async with saver._threads._known["t"].lock:  # so that all wait, and the first one stores for all
        first, *others = [asyncio.create_task(saver.aput_writes(config, [("n", 1)], f"task{number}")) for number in range(4)]
        await turns()
    await turns()
    first.cancel()
    bed.log.gate.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*others)
    assert {"task1", "task2", "task3"} <= {write[0] for write in (await bed.saver().aget_tuple(config)).pending_writes}


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_write_of_a_task_stays_and_the_newest_of_a_special_channel(bed):
    saver = bed.saver()
    config = await put(saver, 1)
    for value in ("first", "second"):
        await saver.aput_writes(config, [("n", value), (INTERRUPT, value)], "task")
    assert sorted((await saver.aget_tuple(config)).pending_writes) == [("task", INTERRUPT, "second"), ("task", "n", "first")]


async def test_pending_writes_come_in_the_order_in_which_a_step_applies_them(bed):
    saver = bed.saver()
    config = await put(saver, 1)
    await saver.aput_writes(config, [("n", 4), ("n", 5)], "task a", "path 2")
    await saver.aput_writes(config, [("n", 3)], "task b", "path 1")
    await saver.aput_writes(config, [("n", 2)], "task 0", "path 1")
    await saver.aput_writes(config, [("n", 1)], "task z")
    assert [value for _, _, value in (await saver.aget_tuple(config)).pending_writes] == [1, 2, 3, 4, 5]


async def test_large_values_are_objects_and_small_entries_stay_small(bed):
    saver = bed.saver()
    config = await put(saver, 1, {"big": "x" * (INLINE_BYTES + 1), "small": 1})
    await saver.aput_writes(config, [("many", "y" * 60_000)] * 20, "task")  # together larger than an entry may be
    assert all(len(entry.body) < EVENT_BYTES for entries in bed.log.appended for entry in entries)
    found = await bed.saver().aget_tuple(THREAD)
    assert found.checkpoint["channel_values"] == {"big": "x" * (INLINE_BYTES + 1), "small": 1}
    assert [write[2] for write in found.pending_writes] == ["y" * 60_000] * 20
    await saver.acopy_thread("t", "copy")
    await saver.adelete_thread("t")
    copied = await bed.saver().aget_tuple({"configurable": {"thread_id": "copy"}})
    assert copied.checkpoint["channel_values"]["big"] == "x" * (INLINE_BYTES + 1)
    assert len(copied.pending_writes) == 20
    await saver.adelete_thread("copy")
    assert not await bed.objects.names("graph/")


async def test_an_altered_object_is_refused(bed):
    saver = bed.saver()
    await put(saver, 1, {"big": "x" * (INLINE_BYTES + 1)})
    (name,) = await bed.objects.names("graph/")
    bed.objects.damage(name)
    with pytest.raises(ApplianceError) as caught:
        await saver.aget_tuple(THREAD)
    assert caught.value.code == "snapshot_altered"


async def test_an_entry_of_a_newer_release_is_refused(bed):
    body = bytearray(encode("t", ()))
    assert msgspec.msgpack.decode(body)[0] == 1
    body[1] = 99
    await bed.log.append([Entry(thread_subject("default", "t"), 0, bytes(body))])
    with pytest.raises(ApplianceError) as caught:
        await bed.saver().aget_tuple(THREAD)
    assert caught.value.code == "event_unknown"


async def test_threads_that_do_not_fit_in_memory_are_read_again(bed):
    saver = bed.saver(cache_bytes=50_000)
    for number in range(40):
        await put(saver, 1, {"text": "z" * 5000}, config={"configurable": {"thread_id": f"t{number}", "checkpoint_ns": ""}})
    assert saver._threads._size <= 50_000
    assert len(saver._threads._known) < 10
    found = await saver.aget_tuple({"configurable": {"thread_id": "t0"}})
    assert found.checkpoint["channel_values"] == {"text": "z" * 5000}


async def test_any_thread_id_has_a_subject_of_its_own(bed):
    saver = bed.saver()
    names = ["t", "T", "a.b", "a b", "имя", "x" * 500, "*", ">", "~", ""]
    for number, name in enumerate(names):
        await put(saver, number, config={"configurable": {"thread_id": name, "checkpoint_ns": ""}})
    for number, name in enumerate(names):
        assert await ids(saver, {"configurable": {"thread_id": name}}) == [f"{number:04}"]
    assert all(set(thread_token(name)).isdisjoint(". *>") for name in names)


async def test_the_loop_of_the_saver_cannot_wait_for_itself(bed):
    with pytest.raises(ApplianceError) as caught:
        bed.saver().get_tuple(THREAD)
    assert caught.value.code == "invalid_request"


async def test_other_threads_call_the_synchronous_methods(bed):
    saver = bed.saver()
    await put(saver, 1)
    await put(saver, 2)
    found = await asyncio.to_thread(lambda: [one.checkpoint["id"] for one in saver.list(THREAD)])
    assert found == ["0002", "0001"]


def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from():
    state = ThreadState()
    for number in range(1, 7):
        values = {"log": (f"{number}", Blob("msgpack", b"snapshot"))} if number == 3 else {}
        state.apply(
            CheckpointPut(
                "", f"{number}", f"{number - 1}" if number > 1 else "", Blob("", b"c"), Blob("", b"m"), {"log": f"{number}"}, values, deltas=("log",)
            )
        )
        state.apply(WritesPut("", f"{number}", "task", "path", (Write(0, "log", Blob("msgpack", b"w")),)))
    assert state.latest_only() == {CheckpointKey("", name) for name in "3456"}
    rebuilt = ThreadState()
    for event in state.rewritten(state.latest_only()):
        rebuilt.apply(event)
    assert [one.key.id for one in rebuilt.ancestors(CheckpointKey("", "6"))] == ["5", "4", "3"]
    assert rebuilt.get(CheckpointKey("", "3")).values == {"log": Blob("msgpack", b"snapshot")}
