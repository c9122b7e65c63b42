"""Schedules: one task per firing across replicas, crashes and jumps of the clock; events without loops; rights and limits."""

import asyncio

import msgspec
import pytest

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import TaskCreated
from services.orchestrator.schedule_stamps import stamp_of
from services.orchestrator.schedules import MOST_SCHEDULES
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.snapshots import Snapshots
from tests.unit.orchestrator.schedule_bed import ANNA, SPEC, START, Box, Clock, following, person

MINUTELY = {"everySeconds": 60}


async def test_a_schedule_makes_a_task_in_its_owners_name_when_it_is_due() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        row = await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        assert (row["nextDue"], row["lastTask"]) == (START + 60, None)
        assert await box.firing.fire() == pytest.approx(30.0)
        clock.time += 60
        await box.firing.fire()
        (task,) = box.tasks
        assert (task.owner, task.space, task.type) == ("user:anna", "lab", "report")
        assert msgspec.json.decode(task.metadata) == {"mine": 1, "schedule": {"name": "daily", "due": START + 60}}
        row = await box.row("daily")
        assert (row["lastTask"], row["lastDue"], row["nextDue"], row["missed"]) == (task.id, START + 60, START + 120, 0)


async def test_three_replicas_make_one_task_per_firing() -> None:
    log, clock = MemoryEventLog(), Clock()
    boxes = [Box(log, clock) for _ in range(3)]
    async with following(*boxes):
        await boxes[0].desk.put(ANNA, "daily", MINUTELY, SPEC)
        for _ in range(5):
            for box in boxes:
                await box.caught_up()
            clock.time += 60
            await asyncio.gather(*(box.firing.fire() for box in boxes))
        for box in boxes:
            await box.caught_up()
            assert [stamp_of(task).due for task in box.tasks] == [START + 60 * n for n in range(1, 6)]
        fired = [entry for append in log.appended for entry in append if b"ScheduleFired" in entry.body]
        assert len(fired) == 5, "losers write nothing"


async def test_due_times_missed_while_the_box_was_off_are_caught_up_once() -> None:
    log, clock = MemoryEventLog(), Clock()
    box = Box(log, clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
    clock.time += 60 * 10 + 5
    again = Box(log, clock)
    async with following(again):
        await again.firing.fire()
        await again.firing.fire()
        (task,) = again.tasks
        assert (stamp_of(task).due, stamp_of(task).missed) == (START + 600, 9)
        row = await again.row("daily")
        assert (row["lastDue"], row["missed"], row["nextDue"]) == (START + 600, 9, START + 660)


@pytest.mark.parametrize("minutes_off", [0, 7])
async def test_killed_between_the_task_and_the_note_nothing_runs_twice(minutes_off: int) -> None:
    log, clock = MemoryEventLog(), Clock()
    box = Box(log, clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        clock.time += 60
        log.conflict_on = lambda entries: b"ScheduleFired" in entries[0].body
        await box.firing.fire()
        assert len(box.tasks) == 1
        assert (await box.row("daily"))["lastTask"] is None, "the note was not written: this is the crash"
    log.conflict_on = None
    clock.time += 60 * minutes_off
    again = Box(log, clock)
    async with following(again):
        for _ in range(3):
            await again.firing.fire()
        dues = [(stamp_of(task).due, stamp_of(task).missed) for task in again.tasks]
        assert dues == [(START + 60, 0)] + ([(START + 480, 6)] if minutes_off else []), "what passed afterwards is one firing of its own"


async def test_a_lost_reply_makes_no_second_task() -> None:
    log, clock = MemoryEventLog(), Clock()
    box = Box(log, clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        clock.time += 60
        log.lose_replies = 1
        assert await box.firing.fire() <= 1.0, "it is tried again soon"
        await box.firing.fire()
        await box.caught_up()
        assert len(box.tasks) == 1
        assert (await box.row("daily"))["lastDue"] == START + 60


async def test_a_clock_that_jumps_forward_fires_once_and_back_again_repeats_nothing() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        for clock.time in (START + 60, START + 120):
            await box.firing.fire()
        clock.time = START + 400 * 86_400
        await box.firing.fire()
        await box.firing.fire()
        assert len(box.tasks) == 3
        clock.time = START + 130
        await box.firing.fire()
        assert len(box.tasks) == 3
        for clock.time in (START + 180, START + 240, START + 300):
            await box.firing.fire()
            await box.firing.fire()
        ran_at = [task.created_at for task in box.tasks]
        assert ran_at == [START + 60, START + 120, START + 400 * 86_400, START + 240, START + 300], "180 was made by the jump"


async def test_a_small_step_back_waits_and_a_large_one_does_not_run_a_due_time_twice() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        for minute in range(1, 11):
            clock.time = START + 60 * minute
            await box.firing.fire()
        clock.time -= 5
        await box.firing.fire()
        clock.time += 5
        await box.firing.fire()
        assert len(box.tasks) == 10
        clock.time = START + 125  # ten minutes back to two
        await box.firing.fire()
        for minute in range(3, 13):
            clock.time = START + 60 * minute
            for _ in range(2):
                await box.firing.fire()
        assert [stamp_of(task).due for task in box.tasks] == [START + 60 * minute for minute in range(1, 13)]


async def test_once_fires_once() -> None:
    log, clock = MemoryEventLog(), Clock()
    box = Box(log, clock)
    async with following(box):
        await box.desk.put(ANNA, "later", {"at": START + 10}, SPEC)
        clock.time += 1000
        for _ in range(3):
            await box.firing.fire()
        assert len(box.tasks) == 1
        row = await box.row("later")
        assert (row["nextDue"], row["lastDue"]) == (None, START + 10)
        with pytest.raises(ApplianceError, match="over"):
            await box.desk.put(ANNA, "never", {"at": START + 10}, SPEC)


async def test_an_owner_who_lost_the_right_makes_no_task_and_due_times_count_as_missed() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        box.refused.add(("user:anna", "lab"))
        clock.time += 130
        await box.firing.fire()
        row = await box.row("daily")
        assert (box.tasks, row["missed"], row["lastTask"], row["lastDue"]) == ([], 2, None, START + 120)
        box.refused.clear()
        clock.time += 60
        await box.firing.fire()
        assert len(box.tasks) == 1


async def test_no_room_for_tasks_delays_a_firing_and_loses_nothing() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock, max_open_tasks_per_space=1)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        clock.time += 60
        await box.firing.fire()
        clock.time += 60
        assert await box.firing.fire() <= 1.0
        (first,) = box.tasks
        await box.replica.execute(first.id, None, cm.Cancel(), by="user:anna")
        await box.firing.fire()
        assert [stamp_of(task).due for task in box.tasks if not task.is_terminal] == [START + 120]


async def test_a_change_of_the_spec_keeps_the_rhythm_and_another_trigger_begins_anew() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        clock.time += 90
        await box.firing.fire()
        await box.desk.put(ANNA, "daily", MINUTELY, msgspec.structs.replace(SPEC, type="other"))
        assert (await box.row("daily"))["nextDue"] == START + 120
        entries = await box.log.last_sequence()
        await box.desk.put(ANNA, "daily", MINUTELY, msgspec.structs.replace(SPEC, type="other"))
        assert await box.log.last_sequence() == entries, "the same again changes nothing"
        clock.time += 60
        await box.firing.fire()
        assert [task.type for task in box.tasks] == ["report", "other"]
        await box.desk.put(ANNA, "daily", {"everySeconds": 600}, SPEC)
        assert (await box.row("daily"))["nextDue"] == clock.time + 600


async def test_the_loop_sleeps_until_something_is_due_and_is_woken_by_a_change() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        loop = asyncio.create_task(box.firing.run())
        try:
            await box.desk.put(ANNA, "soon", {"at": START + 0.2}, SPEC)
            clock.time += 1
            await box.desk.put(ANNA, "other", MINUTELY, SPEC)  # the change wakes it
            async with asyncio.timeout(5):
                while not box.tasks:
                    await asyncio.sleep(0.01)
        finally:
            loop.cancel()


async def fail(box: Box, task_id: str, **fields) -> None:
    """A task that fails."""
    created = TaskCreated(**{"type": "import", "space": "lab", "owner": "user:bert"} | fields)
    await box.replica.execute(task_id, created.space, cm.Create(created=created), by="user:bert")
    await box.replica.execute(task_id, None, cm.Cancel(reason="x"), by="user:bert")


async def test_an_event_makes_one_task_that_names_its_cause() -> None:
    log, clock = MemoryEventLog(), Clock()
    boxes = [Box(log, clock) for _ in range(2)]
    async with following(*boxes):
        await fail(boxes[0], "t_before")
        clock.time += 1
        await boxes[0].desk.put(ANNA, "mend", {"event": "TaskFailed", "taskType": "import"}, SPEC)
        clock.time += 1
        await fail(boxes[1], "t_1")
        await fail(boxes[1], "t_2", type="export")
        await fail(boxes[1], "t_3", space="other")
        for box in boxes:
            await box.caught_up()
        await asyncio.gather(*(box.firing.fire() for box in boxes))
        for box in boxes:
            await box.caught_up()
            (made,) = [task for task in box.tasks if task.owner == "user:anna"]
            stamp = stamp_of(made)
            assert (stamp.name, stamp.cause, stamp.event, stamp.chain) == ("mend", "t_1", "TaskFailed", ("mend",))
        row = await boxes[0].row("mend")
        assert (row["lastTask"], row["lastSequence"], row["nextDue"]) == (made.id, stamp.sequence, None)
        assert boxes[0].firing.pending() == ()


async def test_an_event_of_a_task_that_a_schedule_made_does_not_fire_it_again_nor_through_children() -> None:
    clock = Clock()
    box = Box(MemoryEventLog(), clock)
    async with following(box):
        for name in ("a", "b"):
            await box.desk.put(ANNA, name, {"event": "TaskFailed"}, SPEC)
        clock.time += 1
        await fail(box, "t_1")
        for _ in range(6):
            await box.caught_up()
            await box.firing.fire()
            for task in box.tasks:
                if not task.is_terminal:
                    await fail(box, f"t_child_of_{task.id}", parent=task.id)
                    await box.replica.execute(task.id, None, cm.Cancel(), by="user:anna")
        chains = sorted(stamp_of(task).chain for task in box.tasks if stamp_of(task))
        assert chains == [("a",)] + [("a", "b")] * 2 + [("b",)] + [("b", "a")] * 2, "each for the task and for its child; then it ends"


async def test_an_event_that_came_while_nothing_fired_is_fired_by_a_replay_and_by_a_snapshot() -> None:
    log, clock = MemoryEventLog(), Clock()
    box = Box(log, clock)
    async with following(box):
        await box.desk.put(ANNA, "mend", {"event": "TaskFailed"}, SPEC)
        clock.time += 1
        await fail(box, "t_1")
        await box.caught_up()
        kept = msgspec.Raw(msgspec.json.encode(box.firing.pending()))
    again = Box(log, clock)
    async with following(again):
        assert msgspec.json.encode(again.firing.pending()) == bytes(kept) != b"[]"
        again.firing.restore(kept)
        await again.firing.fire()
        assert len([task for task in again.tasks if stamp_of(task)]) == 1
    third = Box(log, clock)
    async with following(third):
        await third.firing.fire()
        assert len([task for task in third.tasks if stamp_of(task)]) == 1


async def test_a_start_from_a_snapshot_fires_for_events_before_and_behind_it() -> None:
    log, store, clock = MemoryEventLog(), MemoryObjectStore(), Clock()

    def snapshots(box: Box) -> Snapshots:
        return Snapshots(box.replica, log, store, OrchestratorSettings(), {"pending": box.firing.pending})

    box = Box(log, clock)
    writing = snapshots(box)
    async with following(box):
        await box.desk.put(ANNA, "mend", {"event": "TaskFailed"}, SPEC)
        clock.time += 1
        await fail(box, "t_1")
        await box.caught_up()
        await writing.write()
        await fail(box, "t_2")
    again = Box(log, clock)
    again.firing.restore((await snapshots(again).restore())["pending"])
    async with following(again):
        await again.firing.fire()
        assert [stamp_of(task).cause for task in again.tasks if stamp_of(task)] == ["t_1", "t_2"]


async def test_events_wait_while_the_log_is_away() -> None:
    log, clock = MemoryEventLog(), Clock()
    box = Box(log, clock)
    async with following(box):
        await box.desk.put(ANNA, "mend", {"event": "TaskFailed"}, SPEC)
        clock.time += 1
        await fail(box, "t_1")
        await fail(box, "t_2")
        await box.caught_up()
        log.refuse = 1
        assert await box.firing.fire() <= 1.0
        assert len(box.firing.pending()) == 2
        await box.firing.fire()
        assert [stamp_of(task).cause for task in box.tasks if stamp_of(task)] == ["t_1", "t_2"]


async def test_rights_of_schedules() -> None:
    box = Box(MemoryEventLog(), Clock())
    reader, stranger = person("rita", lab=SpaceRole.READER), person("sam", home=SpaceRole.OWNER)
    other, owner = person("emil", lab=SpaceRole.EDITOR), person("olga", lab=SpaceRole.OWNER)
    async with following(box):
        await box.desk.put(ANNA, "daily", MINUTELY, SPEC)
        assert await code(box.desk.put(reader, "mine", MINUTELY, SPEC)) == "forbidden"
        assert await code(box.desk.put(stranger, "mine", MINUTELY, SPEC)) == "not_found"
        assert await code(box.desk.put(other, "daily", {"everySeconds": 5}, SPEC)) == "forbidden"
        assert await code(box.desk.delete(other, "lab", "daily")) == "forbidden"
        assert await code(box.desk.delete(stranger, "lab", "daily")) == "not_found"
        assert await code(box.desk.delete(ANNA, "lab", "none")) == "not_found"
        assert [row["name"] for row in await box.desk.list(reader)] == ["daily"]
        assert await box.desk.list(stranger) == []
        assert await code(box.desk.list(stranger, "lab")) == "not_found"
        assert (await box.desk.put(owner, "daily", MINUTELY, SPEC))["owner"] == "user:olga"
        await box.desk.delete(owner, "lab", "daily")
        assert await box.desk.list(ANNA) == []


async def test_bad_schedules_are_refused() -> None:
    box = Box(MemoryEventLog(), Clock())
    async with following(box):
        for name, trigger, spec in (
            ("bad name", MINUTELY, SPEC), ("a", {"everySeconds": 0}, SPEC), ("a", MINUTELY, msgspec.structs.replace(SPEC, key="k")),
            ("a", MINUTELY, msgspec.structs.replace(SPEC, dependencies=("t_1",))), ("a", MINUTELY, msgspec.structs.replace(SPEC, deadline=START + 5)),
            ("a", MINUTELY, msgspec.structs.replace(SPEC, type="?!")),
        ):  # fmt: skip
            assert await code(box.desk.put(ANNA, name, trigger, spec)) == "task_invalid"
        large = msgspec.structs.replace(SPEC, input_data=msgspec.Raw(msgspec.json.encode({"x": "y" * 40_000})))
        assert await code(box.desk.put(ANNA, "a", MINUTELY, large)) == "too_large"
        for number in range(MOST_SCHEDULES):
            await box.desk.put(ANNA, f"s{number}", MINUTELY, TaskSpec(type="t", space="lab"))
        assert await code(box.desk.put(ANNA, "one_more", MINUTELY, TaskSpec(type="t", space="lab"))) == "too_large"
        assert len(await box.desk.list(ANNA)) == MOST_SCHEDULES


async def code(call) -> str:
    with pytest.raises(ApplianceError) as refused:
        await call
    return refused.value.code
