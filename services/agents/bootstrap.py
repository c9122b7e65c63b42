"""Builds agents and tools of a box. The only file here that names concrete plugins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.audit.ports import Auditor
from appliance.contracts.orchestrator.v1.api import Tasks
from appliance.contracts.retrieval.v1.api import Retrieval
from appliance.contracts.retrieval.v1.documents import DocumentContent, Documents
from appliance.kit.cache import CacheStore
from services.agents.agents_file import AgentsFile
from services.agents.agents_toml import FILE_NAME
from services.agents.arithmetic_tools import arithmetic_plugin
from services.agents.document_tools import document_plugin
from services.agents.grants import Grants
from services.agents.mcp_servers import McpServers
from services.agents.plugin import Plugin
from services.agents.result_cache import ResultCache, Version
from services.agents.settings import AgentSettings
from services.agents.task_tools import task_plugin
from services.agents.toolbox import BoxToolbox, ScreenArguments


@dataclass(frozen=True, slots=True)
class AgentSide:
    """What the box got: ``toolbox`` for the chat path, ``agents`` for routes, ``grants`` for people, ``watching`` for readiness."""

    toolbox: BoxToolbox
    agents: AgentsFile
    grants: Grants
    servers: McpServers
    watching: asyncio.Task[None]

    def sources(self) -> Sequence[Mapping[str, object]]:
        """Where tools come from, and how they are, for operators; ``pin`` is what ``agents.toml`` may pin a server to."""
        pins = {plugin.name: plugin.pin for plugin in self.servers.plugins()}
        count = Counter(str(row["source"]) for row in self.toolbox.describe())
        rows = [{"source": name, "health": health, "tools": count[name], "pin": pins.get(name, "")} for name, health in self.toolbox.health().items()]
        return [*rows, {"source": "agents.toml", "health": self.agents.health(), "tools": 0, "pin": ""}]

    async def probe(self) -> str:
        """For ``/readyz``: a server that is down degrades its own tools only."""
        wrong = [f"{row['source']}: {row['health']}" for row in self.sources() if row["health"] not in {"ok", "connecting"}]
        return f"degraded: {'; '.join(wrong)[:500]}" if wrong else f"{len(self.toolbox.describe())} tools"


@asynccontextmanager
async def open_agents(
    home: Path,
    settings: AgentSettings,
    audit: Auditor,
    *,
    retrieval: Retrieval,
    documents: Documents,
    content: DocumentContent,
    store: CacheStore,
    version: Version,
    tasks: Tasks | None = None,
    more: Sequence[Plugin] = (),
    also_allows: Callable[[str, str], bool] = lambda _agent, _tool: True,
    screen: ScreenArguments | None = None,
) -> AsyncIterator[AgentSide]:
    """Open everything; MCP servers connect in the background.

    Args:
        home: the appliance home: ``agents.toml``, ``tool_approvals.json`` and ``agents/`` for child processes lie there.
        settings: limits.
        audit: the log.
        retrieval: search, for the document tools.
        documents: the catalogue, for the same.
        content: texts, for the same.
        store: where results of read-only tools are kept.
        version: of the documents in some spaces, for that cache.
        tasks: the orchestrator, None when the box runs without one.
        more: plugins of other services.
        screen: looks at arguments that go to MCP servers; what it blocks does not go.
        also_allows: (agent, tool) → whether the site's guardrails let it; a tool must be on both lists.

    Raises:
        ApplianceError: ``settings_invalid``, ``home_invalid``.
    """
    agents = AgentsFile(home / FILE_NAME, audit)
    grants = Grants(home / "tool_approvals.json")
    built_in: list[Plugin] = [document_plugin(retrieval, documents, content), arithmetic_plugin(), *more]
    if tasks is not None:
        built_in.append(task_plugin(tasks))
    async with McpServers(home / "agents") as servers:
        await servers.take_over(agents.config)
        toolbox = BoxToolbox(
            lambda: (*built_in, *servers.plugins()),
            lambda agent, tool: agents.allows(agent, tool) and also_allows(agent, tool),
            agents.rules,
            audit,
            ResultCache(store, version),
            grants,
            settings,
            screen=screen,
        )
        async with toolbox:
            watching = asyncio.create_task(agents.watch(servers.take_over, settings.look_seconds), name="agents-watch")
            try:
                yield AgentSide(toolbox, agents, grants, servers, watching)
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
