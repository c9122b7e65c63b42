"""The MCP servers of ``agents.toml``: each a plugin with its task; started, kept or stopped as the file says. Owns their lives, not their tools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from services.agents.agents_toml import AgentsConfig
from services.agents.mcp_plugin import McpPlugin, Pauses


class McpServers:
    """``async with`` stops them all at the end.

    Args:
        work: folder under which child processes have theirs.
        pauses: for tests.
    """

    def __init__(self, work: Path, pauses: Pauses | None = None) -> None:
        self._work = work
        self._pauses = pauses
        self._running: dict[str, tuple[McpPlugin, asyncio.Task[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop(list(self._running))

    def plugins(self) -> Sequence[McpPlugin]:
        """Those that run, by name."""
        return [plugin for _, (plugin, _) in sorted(self._running.items())]

    async def take_over(self, config: AgentsConfig) -> None:
        """Start what is new, stop what is gone or changed, start what is not well anew: the operator has said something."""
        stale = [
            name
            for name, (plugin, _) in self._running.items()
            if config.servers.get(name) != plugin.table or plugin.health() not in {"ok", "connecting"}
        ]
        await self._stop(stale)
        for name, table in config.servers.items():
            if name not in self._running:
                plugin = McpPlugin(name, table, self._work / name, self._pauses)
                self._running[name] = (plugin, asyncio.create_task(plugin.run(), name=f"mcp-{name}"))

    async def _stop(self, names: list[str]) -> None:
        tasks = [self._running.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
