"""What a client may look at: ``task://{id}``, ``task://{id}/history``, ``knowledge://{id}``, and the list of tasks at ``tasks://newest``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from appliance.contracts.knowledge.v1.api import KnowledgeBase
from appliance.contracts.orchestrator.v1.api import TaskFilter, Tasks
from appliance.contracts.orchestrator.v1.values import Task
from appliance.kit.errors import not_found
from services.orchestrator.mcp.calls import Call
from services.orchestrator.mcp.tools_knowledge import present

NEWEST: Final = "tasks://newest"
_LISTED: Final = 50
_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}"
_TASK: Final = re.compile(rf"task://({_ID})(/history)?")
_KNOWLEDGE: Final = re.compile(rf"knowledge://({_ID})")


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of resource."""

    uri: str
    name: str
    description: str


TEMPLATES: Final = (
    Template("task://{id}", "task", "One task as it stands"),
    Template("task://{id}/history", "task_history", "Everything that happened to a task, oldest first"),
    Template("knowledge://{id}", "knowledge_entry", "One entry of the knowledge base with its relations"),
)


class ReadResource:
    """``resources/read`` with ``{"uri": …}``; anything unknown, malformed or foreign is ``not_found``."""

    def __init__(self, tasks: Tasks, knowledge: KnowledgeBase | None) -> None:
        self._tasks = tasks
        self._knowledge = knowledge

    async def __call__(self, call: Call) -> Any:
        uri = str(call.arguments.get("uri", ""))
        if uri == NEWEST:
            return {"tasks": await self._tasks.list(call.caller, TaskFilter(limit=_LISTED))}
        if match := _TASK.fullmatch(uri):
            if match[2]:
                return {"events": await self._tasks.history(call.caller, match[1])}
            return await self._tasks.get(call.caller, match[1])
        if match := _KNOWLEDGE.fullmatch(uri):
            return await present(self._knowledge).get(call.caller, match[1])
        raise not_found(f"resource {uri[:200]}")


class ListResources:
    """``resources/list``: the newest tasks that the caller may read."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def __call__(self, call: Call) -> list[Task]:
        return list(await self._tasks.list(call.caller, TaskFilter(limit=_LISTED)))
