"""The MCP server on loopback before the real orchestrator (stores in memory) and the real knowledge base, and ``mcp.Client`` against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from appliance.contracts.orchestrator.v1.values import ApprovalRequest, Task, TaskSpec
from services.gateway.orchestration import Orchestration
from services.orchestrator.mcp.edge import McpEdge
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.settings import McpSettings
from tests.integration.tasks_bed import open_tasks
from tests.unit.orchestrator.mcp_bed import KeyRing, Ledger, agent, person

ANNA = person("user:anna", "lab")
CLAUDE = agent("key:k_1", "lab")


@dataclass
class McpBed:
    """What the tests look at."""

    url: str
    needs: McpDependencies
    house: Orchestration
    keys: KeyRing
    audit: Ledger

    async def submit(self, *kinds: str, **more: Any) -> list[str]:
        specs = [TaskSpec(type=kind, space="lab", **more) for kind in kinds]
        return [task.id for task in await self.house.tasks.submit(ANNA, specs)]

    async def task(self, task_id: str) -> Task:
        return await self.house.tasks.get(ANNA, task_id)

    async def questions(self) -> list[ApprovalRequest]:
        return list(await self.house.approvals.list(ANNA, pending_only=False))

    async def first_question(self) -> ApprovalRequest:
        """As soon as there is one."""
        async with asyncio.timeout(10):
            while not (asked := await self.questions()):
                await asyncio.sleep(0.01)
        return asked[0]

    async def decide(self, decision: str = "approve") -> None:
        """A person answers the first question."""
        await self.house.approvals.decide(ANNA, (await self.first_question()).id, decision)

    @asynccontextmanager
    async def client(self, bearer: str = "claude", *, mode: str = "auto", url: str | None = None) -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {bearer}"}, timeout=30) as http,
            Client(streamable_http_client(f"{url or self.url}/mcp", http_client=http), mode=mode) as client,
        ):
            yield client


@asynccontextmanager
async def mcp_bed(home: Path, **settings: Any) -> AsyncIterator[McpBed]:
    """A running server; ``claude`` and ``other`` are agents in space lab, ``stranger`` is one elsewhere, ``anna`` owns lab."""
    keys = KeyRing(claude=CLAUDE, other=agent("key:k_2", "lab"), stranger=agent("key:k_3", "elsewhere"), anna=ANNA)
    audit = Ledger()
    async with open_tasks(home, functions=False) as house:
        needs = McpDependencies(house.tasks, house.work, house.claims, house.approvals, house.executors, house.knowledge, keys, audit)
        async with running(McpEdge(needs, McpSettings(**settings))) as url:
            yield McpBed(url, needs, house, keys, audit)


@asynccontextmanager
async def running(edge: McpEdge) -> AsyncIterator[str]:
    """``edge`` with its lifespan on a free port; its address."""
    async with edge.lifespan(), serving(edge) as url:
        yield url


@asynccontextmanager
async def serving(app: Callable[..., Any]) -> AsyncIterator[str]:
    """``app`` on a free port of loopback, by uvicorn; its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running
