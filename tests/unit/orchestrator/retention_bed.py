"""A replica that starts from what a log and an object store in memory have, with its snapshots and retention."""

import asyncio

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, StepRecord
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryObjectStore
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.projection import Projection
from services.orchestrator.replica import Replica
from services.orchestrator.retention import Retention
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.snapshots import Snapshots
from services.orchestrator.task_checkpoints import TaskCheckpoints
from tests.unit.orchestrator.schedule_bed import Clock

DAY = 86_400.0


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
