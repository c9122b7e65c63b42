"""The orchestrator for tests of its edges: the real one on stores in memory, with the real functions and the real knowledge base; only schedules are listed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryLeases, MemoryObjectStore
from services.gateway.orchestration import Orchestration
from services.knowledge.bootstrap import open_knowledge
from services.knowledge.settings import KnowledgeSettings
from services.orchestrator.bootstrap import Stores, open_orchestrator
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.settings import OrchestratorSettings


def memory_stores() -> Stores:
    """Stores that a second orchestrator can be opened on, as after a restart."""
    return Stores(MemoryEventLog(), MemoryObjectStore(), MemoryLeases())


class ListedSchedules:
    """Schedules that are kept and never fire."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    async def put(self, principal: Principal, name: str, trigger: dict[str, Any], spec: TaskSpec) -> dict[str, Any]:
        if not principal.may(spec.space, SpaceRole.EDITOR):
            raise not_found("space")
        if not {"cron", "everySeconds", "event"} & set(trigger):
            raise ApplianceError("invalid_request", "a trigger has cron, everySeconds or event")
        row = {"name": name, "space": spec.space, "trigger": trigger, "spec": msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(spec)))}
        self._rows[spec.space, name] = row
        return row

    async def list(self, principal: Principal, space: str | None = None) -> Sequence[dict[str, Any]]:
        return [row for (where, _), row in self._rows.items() if space in (None, where) and principal.may(where, SpaceRole.READER)]

    async def delete(self, principal: Principal, space: str, name: str) -> None:
        if self._rows.pop((space, name), None) is None:
            raise not_found("schedule")


@asynccontextmanager
async def open_tasks(
    home: Path, stores: Stores | None = None, encoder: Encoder | None = None, *, functions: bool = True
) -> AsyncIterator[Orchestration]:
    """Everything behind the task routes."""
    async with contextlib.AsyncExitStack() as stack:
        adapters = []
        if functions:
            executor = AlgorithmicExecutor()
            await executor.start()
            stack.push_async_callback(executor.stop)
            adapters.append(executor)
        knowledge = await stack.enter_async_context(
            open_knowledge(folder=home / "knowledge", encoder=encoder, has_space=_any_space, record=_no_record, settings=KnowledgeSettings())
        )
        house = await stack.enter_async_context(open_orchestrator(stores or memory_stores(), OrchestratorSettings(), adapters))
        yield Orchestration(
            tasks=house.tasks,
            control=house.control,
            work=house.work,
            claims=house.claims,
            approvals=house.approvals,
            executors=house.executors,
            schedules=getattr(house, "schedules", None) or ListedSchedules(),
            feed=house.feed,
            knowledge=knowledge.entries,
        )


async def _any_space(_space: str) -> bool:
    return True


async def _no_record(*_: object) -> None:
    return None
