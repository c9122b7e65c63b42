"""``create_task`` and ``task_status``: durable tasks as tools, over the orchestrator's contract, with the caller's rights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.api import Tasks
from appliance.contracts.orchestrator.v1.values import Task, TaskSpec
from appliance.contracts.tools.v1.api import ToolContext
from services.agents.plugin import FixedPlugin, Tool, ToolResult, strict_object

_MOST_RESULT: Final = 16 * 1024
_MOST_WAIT_SECONDS: Final = 20


def task_plugin(tasks: Tasks) -> FixedPlugin:
    """The tools over ``tasks``."""
    made = {
        "type": {"type": "string", "minLength": 1, "maxLength": 200, "description": "task type, for example text.summarise"},
        "description": {"type": "string", "minLength": 1, "maxLength": 4000},
        "space": {"type": "string", "minLength": 1, "maxLength": 63},
        "input": {"type": "object", "description": "input of the task type"},
    }
    asked = {
        "task_id": {"type": "string", "minLength": 1, "maxLength": 200},
        "wait_seconds": {"type": "integer", "minimum": 0, "maximum": _MOST_WAIT_SECONDS, "description": "wait for its end, 0 when left out"},
    }

    async def create(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        whole = msgspec.json.encode([context.trace_id, dict(arguments)], order="sorted")
        spec = TaskSpec(
            type=arguments["type"],
            description=arguments["description"],
            space=arguments["space"],
            input_data=msgspec.Raw(msgspec.json.encode(arguments.get("input", {}))),
            key=f"chat-{hashlib.sha256(whole).hexdigest()[:32]}" if context.trace_id else None,  # the same wish in one turn is one task
            metadata=msgspec.Raw(msgspec.json.encode({"origin": "chat", "thread": context.thread_id, "agent": context.agent})),
        )
        (task,) = await tasks.submit(context.principal, [spec])
        return ToolResult(_told(task))

    async def status(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        wait = arguments.get("wait_seconds", 0)
        task = await (tasks.wait(context.principal, arguments["task_id"], wait) if wait else tasks.get(context.principal, arguments["task_id"]))
        return ToolResult(_told(task))

    return FixedPlugin(
        "plugin:tasks",
        (
            Tool(
                "create_task", "Start a durable background task; gives its id.", strict_object(made, ["type", "description", "space"]), create,
                invalidates=("task_status",),
            ),
            Tool(
                "task_status", "How far a task is, and its result.", strict_object(asked, ["task_id"]), status, read_only=True,
                timeout_seconds=_MOST_WAIT_SECONDS + 10.0,
            ),
        ),
    )  # fmt: skip


def _told(task: Task) -> str:
    result: object = task.result
    if len(task.result) > _MOST_RESULT:
        result = {"note": f"the result has {len(task.result):,} bytes; see it with the task itself"}
    told: dict[str, object] = {"task_id": task.id, "status": str(task.status), "progress": task.progress, "note": task.note, "result": result}
    if task.error is not None:
        told["error"] = {"code": task.error.code, "message": task.error.message}
    return msgspec.json.encode(told).decode()
