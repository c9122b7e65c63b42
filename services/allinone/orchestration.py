"""The orchestrator, its executors and the knowledge base inside the embedded box. Owns how they meet the rest of it; what they do is theirs.

``<home>/nats`` is the event log's server, ``<home>/knowledge`` the knowledge base, ``<home>/functions`` Python files whose functions become task types.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from appliance.audit.log import AuditLog
from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.orchestrator.v1.values import ExecutorStatus
from appliance.home import Home
from appliance.identity.service import Identity
from appliance.kit.errors import ApplianceError
from services.allinone.readiness import Probe
from services.gateway.orchestration import Orchestration
from services.knowledge.bootstrap import Knowledge, open_knowledge
from services.knowledge.settings import KnowledgeSettings
from services.orchestrator.bootstrap import Orchestrator, open_orchestrator
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.history_keeper import HistoryKeeper
from services.orchestrator.jetstream_stores import open_stores
from services.orchestrator.mcp.edge import McpEdge, build_mcp_app
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.settings import McpSettings
from services.orchestrator.ports import ExecutorAdapter
from services.orchestrator.settings import OrchestratorSettings


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Settings of everything here, read once in ``__main__``."""

    orchestrator: OrchestratorSettings
    executors: ExecutorSettings
    knowledge: KnowledgeSettings
    mcp: McpSettings

    @classmethod
    def read(cls) -> TaskSettings:
        """From the environment; raises ``settings_invalid``."""
        return cls(OrchestratorSettings.read(), ExecutorSettings.read(), KnowledgeSettings.read(), McpSettings.read())


@dataclass(frozen=True, slots=True)
class TaskSide:
    """What the box got."""

    orchestrator: Orchestrator
    knowledge: Knowledge
    edge: Orchestration
    mcp: McpEdge
    tasks: Mapping[str, asyncio.Task[None]]
    probes: Mapping[str, Probe]


@asynccontextmanager
async def open_task_side(
    home: Home,
    settings: TaskSettings,
    identity: Identity,
    audit: AuditLog,
    encoder: Encoder,
    encoder_identity: str,
    more: Callable[[AlgorithmicExecutor], tuple[ExecutorAdapter, ...]],
) -> AsyncIterator[TaskSide]:
    """Open the event log, the knowledge base and a replica; ``more`` gives executors besides the algorithmic one, for which it may use."""
    async with AsyncExitStack() as stack:
        executor_settings = settings.executors
        if executor_settings.plugins_folder is None:
            executor_settings = executor_settings.model_copy(update={"plugins_folder": home.functions})
        functions = AlgorithmicExecutor(executor_settings)
        stack.push_async_callback(functions.stop)
        starting = asyncio.create_task(functions.start())  # its process starts beside the event log's
        stack.push_async_callback(_end, starting)
        stores, _ = await stack.enter_async_context(open_stores(settings.orchestrator, home.events))
        knowledge = await stack.enter_async_context(
            open_knowledge(
                folder=home.knowledge, encoder=encoder, has_space=identity.directory.has_space, record=_recorder(audit),
                settings=settings.knowledge, model=encoder_identity,
            )
        )  # fmt: skip
        orchestrator = await stack.enter_async_context(
            open_orchestrator(stores, settings.orchestrator, (functions, *more(functions)), starting=starting, may_submit=identity.directory.may_make_tasks)
        )
        keeper = HistoryKeeper(orchestrator.feed, knowledge.tasks, stores.objects, orchestrator.tasks)
        keeping = asyncio.create_task(keeper.run(), name="task-history")
        stack.push_async_callback(_end, keeping)
        edge = Orchestration(
            tasks=orchestrator.tasks, control=orchestrator.control, work=orchestrator.work, claims=orchestrator.claims,
            approvals=orchestrator.approvals, executors=orchestrator.executors, schedules=orchestrator.schedules, feed=orchestrator.feed,
            knowledge=knowledge.entries,
        )  # fmt: skip
        mcp = build_mcp_app(
            McpDependencies(
                tasks=orchestrator.tasks, work=orchestrator.work, claims=orchestrator.claims, approvals=orchestrator.approvals,
                executors=orchestrator.executors, knowledge=knowledge.entries, authenticator=identity, audit=audit,
            ),
            settings.mcp,
        )  # fmt: skip
        await stack.enter_async_context(mcp.lifespan())
        background = {**{f"tasks.{name}": task for name, task in orchestrator.background.items()}, **knowledge.background, "task_history": keeping}
        probes: dict[str, Probe] = {"event_log": stores.log.check, "functions": _degrading(functions.status), "open_tasks": _counting(orchestrator)}
        yield TaskSide(orchestrator, knowledge, edge, mcp, background, probes)


def _counting(orchestrator: Orchestrator) -> Probe:
    async def probe() -> str:
        known = orchestrator.replica.projection
        online = sum(one.status is ExecutorStatus.ONLINE and not one.gone for one in known.executors.values())
        return f"{known.open_count} open, {len(orchestrator.dispatch.queue)} of them ready, {online} executors online"

    return probe


def _degrading(status: Callable[[], Awaitable[str]]) -> Probe:
    """A worker that cannot run is shown, and the rest still serves."""

    async def probe() -> str:
        try:
            return await status()
        except ApplianceError as error:
            return f"degraded: {error.message}"

    return probe


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _recorder(audit: AuditLog) -> Callable[[str, str, str, dict[str, object]], Awaitable[None]]:
    async def record(actor: str, action: str, resource: str, detail: dict[str, object]) -> None:
        plain = {key: value for key, value in detail.items() if isinstance(value, (str, int, float, bool))}
        await audit.append(actor=actor, action=action, resource=resource, outcome="ok", detail=plain)

    return record
