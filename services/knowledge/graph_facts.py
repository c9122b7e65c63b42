"""What an entry states about tasks, as plain JSON that lies beside it in the truth: enough to make the graph again.

``{"task": {…properties}, "executor": {"id", "type"}, "error": {"code", "message"}, "depends_on": [ids], "parent": id, "mentions": [ids],
"pattern": true}``; every part may be absent.
"""

from __future__ import annotations

from typing import Any, Final

from appliance.contracts.orchestrator.v1.values import Task

_TEXT: Final = 2_000


def task_facts(task: Task) -> dict[str, Any]:
    """Facts of a task that has ended, or of its failure."""
    facts: dict[str, Any] = {
        "task": {
            "id": task.id, "type": task.type[:_TEXT], "description": task.description[:_TEXT], "status": task.status.value, "owner": task.owner,
            "attempt": task.attempt, "priority": task.priority, "created_at": task.created_at, "updated_at": task.updated_at,
        },
        "depends_on": list(task.dependencies),
    }  # fmt: skip
    if task.assigned_executor:
        facts["executor"] = {"id": task.assigned_executor, "type": task.executor_type.value if task.executor_type else None}
    if task.error is not None:
        facts["error"] = {"code": task.error.code[:200], "message": task.error.message[:_TEXT]}
    if task.parent:
        facts["parent"] = task.parent
    return facts


def pattern_facts(task_ids: list[str]) -> dict[str, Any]:
    """Facts of a pattern that was found in several tasks."""
    return {"pattern": True, "mentions": task_ids}
