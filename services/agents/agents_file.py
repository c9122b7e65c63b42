"""The agents of this box, as ``agents.toml`` says now. Owns looking at the file and what is in force; a refused file leaves everything as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from appliance.audit.ports import Auditor
from appliance.audit.record import Detail
from appliance.contracts.router.v1.agents import Agent
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.agents.agents_toml import AgentsConfig, load_agents
from services.agents.policies import ToolRule

_log = get_logger(__name__)
_State = tuple[int, int, int] | None
TakeOver = Callable[[AgentsConfig], Awaitable[None]]


class AgentsFile:
    """Implements ``Agents``.

    Args:
        file: need not exist.
        audit: where changes are recorded.

    Raises:
        ApplianceError: ``settings_invalid``: at start a file that is refused stops the box, as every other setting does.
    """

    def __init__(self, file: Path, audit: Auditor) -> None:
        self._file = file
        self._audit = audit
        self._seen = _state(file)
        self._config = load_agents(file)
        self.problem: ApplianceError | None = None

    @property
    def config(self) -> AgentsConfig:
        """What is in force."""
        return self._config

    def get(self, name: str) -> Agent | None:
        """See ``Agents``."""
        return self._config.agents.get(name)

    def all(self) -> Sequence[Agent]:
        """See ``Agents``."""
        return [agent for _, agent in sorted(self._config.agents.items())]

    def allows(self, agent: str, tool: str) -> bool:
        """Whether an agent may use a tool; an agent that does not exist may use none."""
        found = self._config.agents.get(agent)
        return found is not None and found.allows(tool)

    def rules(self) -> Sequence[ToolRule]:
        """The approval policy."""
        return self._config.rules

    async def watch(self, take_over: TakeOver, look_seconds: float) -> None:
        """Look for ever; cancel to stop."""
        while True:
            await asyncio.sleep(look_seconds)
            try:
                await self.look(take_over)
            except Exception:  # a broken look must not end the watch
                _log.exception("agents_watch_failed")

    async def look(self, take_over: TakeOver) -> None:
        """One look; a file that is new is taken over (servers first, then agents and rules), or refused and left alone until it changes again."""
        state = await asyncio.to_thread(_state, self._file)
        if state == self._seen:
            return
        self._seen = state
        try:
            found = await asyncio.to_thread(load_agents, self._file)
        except ApplianceError as error:
            self.problem = error
            _log.error("agents_not_taken_over", code=error.code, message=error.message)
            await self._audit.append(
                actor="system:agents", action="agents.switch", resource="agents:file", outcome="error", detail={"code": error.code}
            )
            return
        await take_over(found)
        self._config, self.problem = found, None
        detail: Detail = {"agents": sorted(found.agents)[:50], "servers": sorted(found.servers)[:50], "rules": len(found.rules)}
        await self._audit.append(actor="system:agents", action="agents.switch", resource="agents:file", outcome="ok", detail=detail)

    def health(self) -> str:
        """For ``/readyz``."""
        return "ok" if self.problem is None else f"degraded: {self.problem.message}"


def _state(file: Path) -> _State:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
