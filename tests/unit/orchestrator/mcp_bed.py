"""An MCP server on loopback with its own identities, and ``mcp.Client`` against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, TaskSpec
from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.mcp.edge import McpEdge
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.settings import McpSettings
from tests.unit.orchestrator.table_orchestrator import TableApprovals, TableClaims, TableExecutors, TableOrchestrator, TableTasks, TableWork


def agent(subject: str, *spaces: str, requests_per_minute: int = 6000) -> Principal:
    """A principal with the role of Claude, editor in ``spaces``."""
    held = MappingProxyType(dict.fromkeys(spaces, SpaceRole.EDITOR))
    return Principal(subject, "key", roles=frozenset({roles.CLAUDE_OPUS}), spaces=held, requests_per_minute=requests_per_minute)


def person(subject: str, *spaces: str) -> Principal:
    """A member, owner of ``spaces``."""
    return Principal(subject, "user", roles=frozenset({roles.MEMBER}), spaces=MappingProxyType(dict.fromkeys(spaces, SpaceRole.OWNER)))


class KeyRing:
    """Bearers of this test; what is not here is unauthenticated."""

    def __init__(self, **bearers: Principal) -> None:
        self.bearers = dict(bearers)

    async def authenticate(self, bearer: str) -> Principal:
        if bearer not in self.bearers:
            raise ApplianceError("unauthenticated", "the credentials are not valid", hint="use another key")
        return self.bearers[bearer]


@dataclass
class Ledger:
    """Takes audit records and keeps them."""

    records: list[dict[str, Any]] = field(default_factory=list)

    async def append(self, **record: Any) -> int:
        self.records.append(record)
        return len(self.records)

    def outcomes(self, action: str) -> list[str]:
        return [record["outcome"] for record in self.records if record["action"] == action]


class ListedKnowledge:
    """Entries in a dictionary, searched by a word."""

    def __init__(self) -> None:
        self.entries: dict[str, KnowledgeEntry] = {}

    async def store(self, principal, space, entry_type, content, metadata=None, related_entries=(), key=None):
        if not principal.may(space, SpaceRole.EDITOR):
            raise not_found("space")
        entry = KnowledgeEntry(id=f"k_{len(self.entries) + 1}", type=entry_type, content=content, metadata=metadata or {}, space=space)
        self.entries[entry.id] = entry
        return entry

    async def search(self, principal, query, entry_type=None, limit=10, spaces=None):
        found = [one for one in self.entries.values() if query in one.content and one.space in principal.spaces and entry_type in {None, one.type}]
        return found[:limit]

    async def get(self, principal, entry_id):
        entry = self.entries.get(entry_id)
        if entry is None or entry.space not in principal.spaces:
            raise not_found("knowledge entry")
        return entry


@dataclass
class McpBed:
    """What the tests look at."""

    url: str
    edge: McpEdge
    table: TableOrchestrator
    tasks: TableTasks
    approvals: TableApprovals
    keys: KeyRing
    audit: Ledger
    knowledge: ListedKnowledge

    async def submit(self, *kinds: str, space: str = "lab", **more: Any) -> list[str]:
        specs = [TaskSpec(type=kind, space=space, **more) for kind in kinds]
        return [task.id for task in await self.tasks.submit(person("user:anna", space), specs)]

    @asynccontextmanager
    async def client(self, bearer: str = "claude", *, mode: str = "auto", headers: dict[str, str] | None = None) -> AsyncIterator[Client]:
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {bearer}", **(headers or {})}, timeout=30) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode) as client,
        ):
            yield client


@asynccontextmanager
async def mcp_bed(**settings: Any) -> AsyncIterator[McpBed]:
    """A running server; ``claude`` and ``other`` are agents in space lab, ``stranger`` is one elsewhere, ``anna`` owns lab."""
    table = TableOrchestrator()
    keys = KeyRing(
        claude=agent("key:k_1", "lab"), other=agent("key:k_2", "lab"), stranger=agent("key:k_3", "elsewhere"), anna=person("user:anna", "lab")
    )
    tasks, approvals, audit, knowledge = TableTasks(table), TableApprovals(table), Ledger(), ListedKnowledge()
    needs = McpDependencies(tasks, TableWork(table), TableClaims(table), approvals, TableExecutors(table), knowledge, keys, audit)
    edge = McpEdge(needs, McpSettings(**settings))
    async with edge.lifespan(), serving(edge) as url:
        yield McpBed(url, edge, table, tasks, approvals, keys, audit, knowledge)


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
