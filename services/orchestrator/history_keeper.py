"""Execution history for the knowledge base, written by following the feed: the coordinator does not know of it.

At least once: the position is kept in the object store after the entries before it are stored, and storing is idempotent by task id. Knowledge that
cannot be written holds the keeper up, never a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from appliance.contracts.knowledge.v1.api import SpecialisedKnowledge
from appliance.contracts.orchestrator.v1.api import Feed, Tasks
from appliance.contracts.orchestrator.v1.values import Task, TaskEvent
from appliance.identity.principal import ADMIN, Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger

POSITION: Final = "history/position"
_AGAIN_SECONDS: Final = 2.0
_KEEP_EVERY: Final = 1_000
_KEEP_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.02
_NOTEWORTHY: Final = frozenset({"TaskCompleted", "TaskFailed"})
_SKIPPED: Final = frozenset({"cancelled", "dependency_failed"})
_log = get_logger(__name__)


class Positions(Protocol):
    """Where the position is kept (the object store)."""

    async def put(self, name: str, data: bytes) -> None: ...

    async def get(self, name: str) -> bytes | None: ...


class EverySpace(Mapping[str, SpaceRole]):
    """The rights of the box's own subscriber: editor wherever there is a space."""

    def __getitem__(self, name: str) -> SpaceRole:
        return SpaceRole.EDITOR

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0

    def get(self, name: str, default: Any = None) -> SpaceRole:
        """Editor of every space."""
        del name, default
        return SpaceRole.EDITOR


def keeper_principal() -> Principal:
    """Reads every task; stores what it saw in the task's own space."""
    return Principal("system:history", "service", roles=frozenset({ADMIN}), spaces=EverySpace())


class HistoryKeeper:
    """See the module."""

    def __init__(self, feed: Feed, knowledge: SpecialisedKnowledge, positions: Positions, tasks: Tasks) -> None:
        self._feed = feed
        self._knowledge = knowledge
        self._positions = positions
        self._tasks = tasks
        self._principal = keeper_principal()

    async def run(self) -> None:
        """For ever; after a failure again from the kept position."""
        while True:
            try:
                await self._follow()
            except ApplianceError as error:
                _log.warning("task_history_delayed", code=error.code, error=error.message)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _follow(self) -> None:
        kept = await self._positions.get(POSITION)
        position = int(kept) if kept is not None else 0
        clock = asyncio.get_running_loop().time
        unkept, kept_at = 0, clock()
        async for event in self._feed.follow(self._principal, after=position):
            if event.name in _NOTEWORTHY:
                await self._store(event)
                await asyncio.sleep(_PAUSE_SECONDS)  # history may lag behind; people and tasks come first
            unkept += 1
            if unkept >= _KEEP_EVERY or clock() - kept_at >= _KEEP_SECONDS:
                await self._positions.put(POSITION, str(event.sequence).encode())
                unkept, kept_at = 0, clock()

    async def _store(self, event: TaskEvent) -> None:
        try:
            task = await self._tasks.get(self._principal, event.task_id)
            plain = wire(task)
            await self._knowledge.store_execution_history(self._principal, plain)
            if event.name == "TaskFailed" and task.error is not None and task.error.code not in _SKIPPED:
                await self._knowledge.store_failure_analysis(self._principal, plain, f"{task.error.code}: {task.error.message}")
        except ApplianceError as error:
            if error.code in {"unavailable", "overloaded", "disk_full"}:
                raise
            _log.warning("task_history_skipped", task=event.task_id, code=error.code, error=error.message)


def wire(task: Task) -> dict[str, Any]:
    """The task as plain JSON values, by its wire names."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(task))
    return plain
