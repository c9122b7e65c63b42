"""What tests of tools share: principals, an audit log that remembers, tools that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.contracts.llm.v1.api import ToolCall
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.tools.v1.api import ToolContext
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.cache import MemoryCacheStore
from services.agents.arguments import ArgumentChecker
from services.agents.grants import Grants
from services.agents.plugin import FixedPlugin, Tool, ToolResult, strict_object
from services.agents.policies import ToolRule
from services.agents.result_cache import ResultCache
from services.agents.settings import AgentSettings
from services.agents.toolbox import BoxToolbox

ANY = {"type": "object"}
TEXT = strict_object({"text": {"type": "string"}}, ["text"])


def person(name: str = "anna", *, roles: Sequence[str] = ("member",), spaces: Mapping[str, SpaceRole] | None = None, kind: str = "user") -> Principal:
    return Principal(f"user:{name}", kind, frozenset(roles), spaces={"default": SpaceRole.EDITOR} if spaces is None else spaces)  # type: ignore[arg-type]


CHECKER = ArgumentChecker()  # one for all: a schema takes 15 ms the first time
ADMIN = person("root", roles=("admin", "member"))
ANNA = ToolContext(person(), "assistant", thread_id="th_1", trace_id="tr_1", turn_id="turn_1")


@dataclass
class RememberingAudit:
    """Has the port's shape; ``refuse`` is raised from then on."""

    records: list[dict[str, Any]] = field(default_factory=list)
    refuse: Exception | None = None

    async def append(self, **fields: Any) -> int:
        if self.refuse is not None:
            raise self.refuse
        await asyncio.sleep(0)
        self.records.append(fields)
        return len(self.records)

    def of(self, tool: str) -> list[tuple[str, str]]:
        return [(one["outcome"], one["detail"].get("code", "")) for one in self.records if one["resource"] == f"tool:{tool}"]


class Probe:
    """A tool that counts, can be held, and says when it runs."""

    def __init__(
        self, answer: Callable[[Mapping[str, Any]], str] = lambda arguments: str(dict(arguments)), passages: tuple[Passage, ...] = ()
    ) -> None:
        self.calls: list[dict[str, Any]] = []
        self.began = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0
        self.cancelled = 0
        self.wanted: int | None = None
        self.together = asyncio.Event()
        self._answer = answer
        self._passages = passages

    async def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        self.calls.append(dict(arguments))
        self.began.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.wanted is not None and self.at_once >= self.wanted:
            self.together.set()
        try:
            if self.wanted is not None:
                await asyncio.wait_for(self.together.wait(), 20)
            if self.gate is not None:
                await self.gate.wait()
            return ToolResult(self._answer(arguments), self._passages)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1


def tool(name: str, call: Callable[..., Awaitable[Any]], parameters: Mapping[str, Any] = ANY, **more: Any) -> Tool:
    return Tool(name, f"does {name}", parameters, call, **more)


def call(name: str, arguments: str = "{}", call_id: str = "") -> ToolCall:
    return ToolCall(call_id or f"id-{name}", name, arguments)


def toolbox(
    tools: Sequence[Tool],
    *,
    audit: RememberingAudit | None = None,
    rules: Sequence[ToolRule] = (ToolRule("*", "ALWAYS"),),
    grants: Grants | None = None,
    allows: Callable[[str, str], bool] = lambda agent, name: True,
    settings: AgentSettings | None = None,
    cache: bool = False,
    version: Callable[[frozenset[str]], str] = lambda spaces: "1",
) -> BoxToolbox:
    plugin = FixedPlugin("plugin:test", tuple(tools))
    results = ResultCache(MemoryCacheStore(), version) if cache else None
    return BoxToolbox(lambda: (plugin,), allows, lambda: rules, audit or RememberingAudit(), results, grants, settings, CHECKER)


def grants_in(folder: Path, clock: Callable[[], float] = lambda: 1000.0) -> Grants:
    return Grants(folder / "tool_approvals.json", clock)
