"""Each fault once, on real processes and real servers: what was acknowledged stays, nothing finished is repeated, everything ends. All at once: ``tests/chaos``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from contextlib import asynccontextmanager

import msgspec
import pytest

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.client import OrchestratorClient, one_key
from appliance.contracts.orchestrator.v1.values import RetryPolicy, TaskSpec, TaskStatus
from appliance.kit.errors import ApplianceError
from appliance.kit.grpc import open_channel
from appliance.kit.nats_server import free_ports
from tests.chaos.bed import ReplicaProcess, chaos_bed
from tests.chaos.checker import check, stories
from tests.chaos.driver import persistent
from tests.chaos.effects import read_effects
from tests.chaos.faults import fill, flip_bits, move_clock
from tests.chaos.record import Record
from tests.chaos.replica_process import DRIVER, ReplicaConfig, driver
from tests.chaos.run import agreement, read_log
from tests.integration.power_cut import power_disks, why_not

pytestmark = pytest.mark.faults

WAIT_SECONDS = 60.0
RNG = random.Random(4)
needs_disks = pytest.mark.skipif(why_not() is not None, reason=f"disks of our own: {why_not()}")


def steps(key, count=3, sleep=0.0, **changes):
    data = {"steps": count, "sleep": sleep, "numbers": [1, 2]}
    return TaskSpec(
        type="chaos.steps", space="alpha", key=key, input_data=msgspec.Raw(msgspec.json.encode(data)), retry=RetryPolicy(max_attempts=4, first_seconds=0.05),
        **changes,
    )  # fmt: skip


class User:
    """Submits to any replica, remembers what was acknowledged, sees it end."""

    def __init__(self, *clients):
        self.clients = list(clients)
        self.record = Record()

    async def submit(self, *specs):
        made = await self.call(lambda client: client.tasks.submit(driver(), specs))
        self.record.submitted.update({one.key: task.id for one, task in zip(specs, made, strict=True)})
        return made

    async def call(self, call):
        return await persistent(self.clients, call, RNG)

    async def until(self, task_id, condition):
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition(task := await self.call(lambda client: client.tasks.get(driver(), task_id))):
                await asyncio.sleep(0.02)
        return task

    async def all_completed(self):
        for task_id in self.record.submitted.values():
            task = await self.until(task_id, lambda task: task.status.is_terminal)
            assert task.status is TaskStatus.COMPLETED, f"{task.key}: {task.error}"


async def sound(bed, user):
    """The log, after it was found sound and every replica agrees with it."""
    entries = await read_log(bed)
    assert check(entries, user.record, read_effects(bed.effects)) == []
    assert await agreement(bed, entries) == []
    return stories(entries)


async def test_the_survivor_takes_over_what_a_killed_replica_held(tmp_path):
    async with chaos_bed(tmp_path, replicas=2, nodes=1) as bed:
        first, second = User(bed.clients[0]), User(bed.clients[1])
        made = await first.submit(*(steps(f"k{number}", 4, 0.5) for number in range(40)))
        held = [task.id for task in made if (await first.until(task.id, lambda task: task.assigned_executor)).assigned_executor == "algorithmic@r0"]
        assert held
        await bed.replicas[0].kill()
        begin = time.monotonic()
        await second.until(held[0], lambda task: task.assigned_executor == "algorithmic@r1")
        gap = time.monotonic() - begin
        print(f"killed replica: first claim of the survivor after {gap:.2f} s")
        assert gap < 10.0
        second.record = first.record
        await second.all_completed()
        await bed.replicas[0].start()
        await sound(bed, second)


async def test_a_replica_that_was_stopped_for_longer_than_its_lease_reports_in_vain(tmp_path):
    async with chaos_bed(tmp_path, replicas=2, nodes=1) as bed:
        user = User(bed.clients[1])
        await User(bed.clients[0]).submit(*(steps(f"k{number}", 3, 0.4) for number in range(20)))
        user.record.submitted = {task.key: task.id for task in await bed.clients[1].tasks.list(driver(), TaskFilter(limit=100))}
        bed.replicas[0].pause()
        await user.all_completed()
        bed.replicas[0].proceed()
        back = User(bed.clients[0])
        await back.submit(steps("after"))
        user.record.submitted |= back.record.submitted
        await user.all_completed()
        told = await sound(bed, user)
        assert any("LeaseExpired" in story.names() for story in told.values()), "nothing was held when it stopped"
        async with asyncio.timeout(WAIT_SECONDS):
            while any(one.status != "online" for one in await back.call(lambda client: client.executors.list(driver()))):
                await asyncio.sleep(0.05)


async def test_killed_function_workers_cost_no_task_and_no_finished_step(tmp_path):
    async with chaos_bed(tmp_path, replicas=1, nodes=1) as bed:
        user = User(bed.clients[0])
        made = await user.submit(*(steps(f"k{number}", 6, 0.3) for number in range(10)))
        for _ in range(2):
            await user.until(made[0].id, lambda task: task.status is not TaskStatus.PENDING)
            workers = bed.replicas[0].workers()
            assert workers
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(WAIT_SECONDS):
                while set(bed.replicas[0].workers()) & set(workers) or not bed.replicas[0].workers():
                    await asyncio.sleep(0.05)
        await user.all_completed()
        await sound(bed, user)


async def test_a_replica_cut_off_from_its_log_takes_nobody_for_dead_and_comes_back(tmp_path):
    async with chaos_bed(tmp_path, replicas=2, nodes=1) as bed:
        user, other = User(bed.clients[1]), User(bed.clients[0])
        made = [
            *await user.submit(*(steps(f"k{number}", 2, 4.0) for number in range(8))),
            *await other.submit(*(steps(f"o{number}", 2, 4.0) for number in range(8))),
        ]
        user.record.submitted |= other.record.submitted
        for task in made:
            await user.until(task.id, lambda task: task.assigned_executor)
        bed.client_wires[0, 0].cut()
        begin = time.monotonic()
        lost = asyncio.create_task(_lost(user))
        await asyncio.wait({lost}, timeout=5.0)
        bed.client_wires[0, 0].mend()
        assert lost.done(), "it was not taken for lost while it was cut off"
        print(f"a replica that was cut off is lost after {time.monotonic() - begin:.2f} s")
        await user.all_completed()
        told = await sound(bed, user)
        expired = [event["executor"] for story in told.values() for _, _, event in story.events if event["name"] == "LeaseExpired"]
        assert set(expired) <= {"algorithmic@r0"}, "the one that was cut off ended claims of the other"


async def _lost(user):
    while True:
        lost = {one.id for one in await user.call(lambda client: client.executors.list(driver())) if one.status == "lost"}
        if lost == {"algorithmic@r0"}:
            return
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_all_nodes_killed_one_damaged_and_the_net_cut_in_two(tmp_path):
    """On a cluster of three: everything dies at once, comes back with damaged blocks on one node, then one node is alone for a while."""
    async with chaos_bed(tmp_path, replicas=2, nodes=3) as bed:
        user = User(*bed.clients)
        await user.submit(*(steps(f"a{number}", 3, 0.2) for number in range(40)))
        await asyncio.gather(*(server.kill() for server in bed.servers))
        assert flip_bits(bed.servers[1], random.Random(1), 3) == 3
        await asyncio.gather(*(server.start() for server in bed.servers))
        begin = time.monotonic()
        await user.submit(steps("first"))
        print(f"all nodes killed: next acknowledgement {time.monotonic() - begin:.2f} s after they were started")
        wires = [wire for (a, b), wire in bed.routes.items() if 2 in {a, b}]
        for wire in wires:
            wire.cut()
        await user.submit(*(steps(f"b{number}", 2) for number in range(10)))
        for wire in wires:
            wire.mend()
        await user.all_completed()
        await sound(bed, user)


async def test_a_clock_that_jumps_an_hour_ends_no_claim_and_no_question(tmp_path):
    async with chaos_bed(tmp_path, replicas=2, nodes=1) as bed:
        user = User(*bed.clients)
        asked = TaskSpec(type="chaos.effect", space="alpha", key="asked", input_data=msgspec.Raw(b'{"effects":1,"decision":"approve"}'))
        made = await user.submit(asked, *(steps(f"k{number}", 3, 1.0) for number in range(6)))
        request = None
        async with asyncio.timeout(WAIT_SECONDS):
            while request is None:
                request = next(iter(await user.call(lambda client: client.approvals.list(driver()))), None)
        for replica in bed.replicas:
            move_clock(replica, 3600.0)
        for task in made[1:]:
            await user.until(task.id, lambda task: task.status.is_terminal)
        answer = await user.call(lambda client: client.approvals.decide(driver(), request.id, "approve"))
        assert answer.status == "approved"
        await user.all_completed()
        told = await sound(bed, user)
        assert not any({"LeaseExpired", "AttemptFailed"} & set(story.names()) for story in told.values())


@asynccontextmanager
async def one_box(folder, store=None, **changes):
    """A replica with a server of its own, as on an embedded box: (process, user). ``store``: where the server's folder is."""
    port = free_ports(1)[0]
    config = ReplicaConfig(
        name="box", folder=str(store or folder / "box"), port=port, effects=str(folder / "effects"), clock=str(folder / "clock"), **changes
    )
    process = ReplicaProcess(config, folder)
    channel = open_channel("127.0.0.1", port, None)
    try:
        await process.start()
        yield process, User(OrchestratorClient(channel, one_key(DRIVER)))
    finally:
        await channel.close()
        await process.kill()


async def told_by(user):
    """Every task's events, as the box tells them."""
    found = {}
    for task_id in user.record.submitted.values():
        found[task_id] = await user.call(lambda client: client.tasks.history(driver(), task_id))
    return found


async def test_a_box_killed_in_the_middle_of_a_graph_goes_on_and_repeats_nothing(tmp_path):
    async with one_box(tmp_path) as (process, user):
        chain = [steps(f"k{number}", 4, 0.15, dependencies=(f"k{number - 1}",) if number else ()) for number in range(4)]
        made = await user.submit(*chain)
        for task in made[:3]:
            await user.until(task.id, lambda task: task.status is not TaskStatus.PENDING)
            before = await told_by(user)
            await process.kill()
            await process.start()
            after = await told_by(user)
            for task_id, events in before.items():
                assert after[task_id][: len(events)] == events, "what was told before the kill is not there any more"
        await user.all_completed()
        for task_id, events in (await told_by(user)).items():
            names = [event.name for event in events]
            assert names.count("TaskCompleted") == 1 and names.count("StepFinished") == 4, f"{task_id}: {names}"
            done = [msgspec.json.decode(event.data)["result"] for event in events if event.name == "StepFinished"]
            task = await user.call(lambda client: client.tasks.get(driver(), task_id))
            assert msgspec.json.decode(task.result)["nonces"] == done, "a finished step was run again"


@needs_disks
async def test_a_power_cut_takes_no_acknowledged_task_and_no_answer(tmp_path):
    try:
        disks = power_disks(tmp_path, 1, size_mb=512)
        disk = disks.__enter__()[0]
    except subprocess.CalledProcessError as error:
        pytest.skip(f"power cut: {error}")
    try:
        async with one_box(tmp_path, disk.path / "box", max_log_bytes=64 << 20, max_object_bytes=64 << 20) as (process, user):
            for number in range(3):
                asked = TaskSpec(type="chaos.effect", space="alpha", key=f"e{number}", input_data=msgspec.Raw(b'{"effects":1,"decision":"approve"}'))
                await user.submit(asked, *(steps(f"k{number}-{at}", 3, 0.05) for at in range(10)))
                asked_now = ()
                async with asyncio.timeout(WAIT_SECONDS):
                    while not asked_now:
                        asked_now = await user.call(lambda client: client.approvals.list(driver()))
                for request in asked_now:
                    answer = await user.call(lambda client: client.approvals.decide(driver(), request.id, "approve"))
                    user.record.decisions[request.id] = str(answer.status)
                disk.cut()
                await process.kill()
                disk.restore()
                await process.start()
            for task_id in user.record.submitted.values():
                task = await user.until(task_id, lambda task: task.status.is_terminal)
                # an effect that was begun when the power failed may have happened: nobody does it again
                assert task.status is TaskStatus.COMPLETED or task.error.code == "effect_unknown", task.error
            told = [event for events in (await told_by(user)).values() for event in events if event.name == "ApprovalDecided"]
            decided = {(data := msgspec.json.decode(event.data))["approval"]: data["status"] for event in told}
            assert user.record.decisions and user.record.decisions.items() <= decided.items()
            lines = [approval for approval, _, _ in read_effects(tmp_path / "effects")]
            assert len(lines) == len(set(lines)) and set(lines) <= set(decided)
    finally:
        disks.__exit__(None, None, None)


@needs_disks
@pytest.mark.slow
async def test_a_node_whose_disk_is_full_stops_nobody(tmp_path):
    try:
        disks = power_disks(tmp_path, 1, size_mb=160)
        disk = disks.__enter__()[0]
    except subprocess.CalledProcessError as error:
        pytest.skip(f"disk: {error}")
    try:
        stores = [disk.path / "store", tmp_path / "store1", tmp_path / "store2"]
        async with chaos_bed(tmp_path, replicas=2, nodes=3, stores=stores, max_log_bytes=64 << 20, max_object_bytes=64 << 20) as bed:
            user = User(*bed.clients)
            await user.submit(*(steps(f"a{number}") for number in range(20)))
            ballast = fill(disk.path)
            await user.submit(*(steps(f"b{number}", 5) for number in range(40)))
            await user.all_completed()
            ballast.unlink()
            await user.submit(*(steps(f"c{number}") for number in range(20)))
            await user.all_completed()
            await sound(bed, user)
    finally:
        disks.__exit__(None, None, None)


async def test_a_submission_that_was_refused_for_good_made_nothing(tmp_path):
    """A log that was away says so: nothing is acknowledged, and the same submission later is the only one."""
    async with chaos_bed(tmp_path, replicas=1, nodes=1) as bed:
        user = User(bed.clients[0])
        await bed.servers[0].kill()
        with pytest.raises((ApplianceError, TimeoutError)):
            async with asyncio.timeout(2.0):
                await bed.clients[0].tasks.submit(driver(), [steps("one"), steps("two")])
        await bed.servers[0].start()
        await user.submit(steps("one"), steps("two"))
        await user.all_completed()
        assert len(await sound(bed, user)) == 2
