"""Replicas with schedules on one log in memory, and a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.identity.principal import MEMBER, Principal, SpaceRole
from appliance.testing.fakes_event_log import MemoryEventLog
from services.orchestrator.projection import Projection
from services.orchestrator.replica import Replica
from services.orchestrator.schedule_firing import Firing
from services.orchestrator.schedules import ScheduleDesk
from services.orchestrator.settings import OrchestratorSettings

START = 1_780_000_000.0
SPEC = TaskSpec(type="report", space="lab", input_data=msgspec.Raw(b'{"of": "day"}'), metadata=msgspec.Raw(b'{"mine": 1}'))


def person(name: str, **spaces: SpaceRole) -> Principal:
    return Principal(f"user:{name}", "user", frozenset({MEMBER}), spaces=spaces)


ANNA = person("anna", lab=SpaceRole.EDITOR)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


class Box:
    """One replica."""

    def __init__(self, log: MemoryEventLog, clock: Clock, **settings) -> None:
        self.log = log
        self.refused: set[tuple[str, str]] = set()
        self.replica = Replica(log, Projection(1000), "r", clock)
        limits = OrchestratorSettings(**settings)
        self.firing = Firing(self.replica, limits, self._may_submit)
        self.desk = ScheduleDesk(self.replica, self.firing, limits)

    async def _may_submit(self, owner: str, space: str) -> bool:
        return (owner, space) not in self.refused

    @property
    def tasks(self) -> list:
        return sorted(self.replica.projection.tasks.values(), key=lambda state: state.seq)

    async def caught_up(self) -> None:
        """Everything in the log is known here."""
        async with asyncio.timeout(5):
            while self.replica.projection.position < await self.log.last_sequence():
                await asyncio.sleep(0)

    async def row(self, name: str) -> dict:
        return next(one for one in await self.desk.list(ANNA) if one["name"] == name)


@asynccontextmanager
async def following(*boxes: Box) -> AsyncIterator[None]:
    """The replicas follow the log while entered."""
    tails = [asyncio.create_task(box.replica.follow()) for box in boxes]
    try:
        async with asyncio.timeout(5):
            for box in boxes:
                await box.replica.caught_up.wait()
        yield
    finally:
        for tail in tails:
            tail.cancel()
        await asyncio.gather(*tails, return_exceptions=True)
