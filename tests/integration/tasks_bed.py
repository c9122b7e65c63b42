"""The orchestrator for tests of its edges: the real one on stores in memory, with the real functions and the real knowledge base."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from appliance.contracts.embed.v1.api import Encoder
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryLeases, MemoryObjectStore
from services.gateway.orchestration import Orchestration
from services.knowledge.bootstrap import open_knowledge
from services.knowledge.settings import KnowledgeSettings
from services.orchestrator.bootstrap import open_orchestrator
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.jetstream_stores import Stores
from services.orchestrator.settings import OrchestratorSettings


def memory_stores() -> Stores:
    """Stores that a second orchestrator can be opened on, as after a restart."""
    return Stores(MemoryEventLog(), MemoryObjectStore(), MemoryLeases())


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
            schedules=house.schedules,
            feed=house.feed,
            knowledge=knowledge.entries,
        )


async def _any_space(_space: str) -> bool:
    return True


async def _no_record(*_: object) -> None:
    return None
