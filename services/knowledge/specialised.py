"""The three specialised ways to store: what was done, what was learned from it, why it failed. Owns the text and the facts that are made of a task.

Repeated and late deliveries change nothing: an entry of a task is replaced only by one of the same or a newer version of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType, Task, TaskEvent
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.knowledge.access import require_editor
from services.knowledge.domain import Draft, checked_content, checked_metadata, too_deep
from services.knowledge.graph_facts import pattern_facts, task_facts
from services.knowledge.knowledge_base import KnowledgeService
from services.knowledge.sqlalchemy_truth import SqlTruth

_PART: Final = 20_000
_EVENTS: Final = 200
_MAX_TASK_BYTES: Final = 8 * 1024 * 1024
_MAX_DEPTH: Final = 64
_MAX_TASKS: Final = 200
_TASK_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class TaskKnowledge:
    """Implements ``SpecialisedKnowledge``."""

    def __init__(self, service: KnowledgeService, truth: SqlTruth) -> None:
        self._service, self._truth = service, truth

    async def store_execution_history(self, principal: Principal, task: dict[str, Any]) -> KnowledgeEntry:
        """See the contract. ``task["events"]`` may hold its history, in the wire form of ``TaskEvent``."""
        done, events = _read(task)
        text = "\n".join([*_lines(done), *(_event_line(event) for event in events[-_EVENTS:])])
        return await self._keep(principal, done, KnowledgeType.EXECUTION_HISTORY, f"execution:{done.id}", text)

    async def store_failure_analysis(self, principal: Principal, task: dict[str, Any], analysis: str) -> KnowledgeEntry:
        """See the contract."""
        failed, _ = _read(task)
        text = "\n".join([checked_content(analysis)[: 4 * _PART], *_lines(failed)])
        return await self._keep(principal, failed, KnowledgeType.FAILURE_ANALYSIS, f"failure:{failed.id}", text)

    async def store_learned_pattern(
        self, principal: Principal, space: str, pattern: str, task_ids: Sequence[str], metadata: dict[str, Any] | None = None
    ) -> KnowledgeEntry:
        """See the contract."""
        require_editor(principal, space)
        distinct = list(dict.fromkeys(task_ids)) if not isinstance(task_ids, str) else []
        if not 0 < len(distinct) <= _MAX_TASKS or not all(isinstance(one, str) and _TASK_ID.fullmatch(one) for one in distinct):
            raise ApplianceError("invalid_request", f"a pattern names 1 to {_MAX_TASKS} tasks by their ids", hint="ids look like t_…")
        about = checked_metadata({**(metadata or {}), "taskIds": distinct})
        draft = Draft(space, KnowledgeType.LEARNED_PATTERN, checked_content(pattern), about, (), None, pattern_facts(distinct))
        return await self._service.keep(principal, draft)

    async def _keep(self, principal: Principal, task: Task, entry_type: KnowledgeType, key: str, text: str) -> KnowledgeEntry:
        require_editor(principal, task.space)
        known = await self._truth.with_key(task.space, key)
        if known is not None and known.entry.metadata.get("version", 0) > task.version:
            return known.entry
        draft = Draft(task.space, entry_type, checked_content(text), _metadata(task), (), key, task_facts(task))
        return await self._service.keep(principal, draft)


def _read(task: dict[str, Any]) -> tuple[Task, list[TaskEvent]]:
    """A task and its events from their wire form, with bounded size."""
    if not isinstance(task, dict) or too_deep(task, _MAX_DEPTH):
        raise _not_a_task()
    try:
        encoded = msgspec.json.encode({name: value for name, value in task.items() if name != "events"})
        events = msgspec.json.encode(task.get("events") or [])
        if len(encoded) + len(events) > _MAX_TASK_BYTES:
            raise ApplianceError("too_large", f"a task is over {_MAX_TASK_BYTES >> 20} MiB", hint="keep large data outside the task")
        read = msgspec.json.decode(encoded, type=Task)
        history = msgspec.json.decode(events, type=list[TaskEvent])
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise _not_a_task() from error
    if not all(_TASK_ID.fullmatch(one) for one in (read.id, *read.dependencies, read.parent or read.id)) or len(read.dependencies) > 10_000:
        raise _not_a_task()
    return read, history


def _not_a_task() -> ApplianceError:
    return ApplianceError("invalid_request", "this is not a task", hint="pass a task in its wire form (camelCase fields)")


def _lines(task: Task) -> list[str]:
    lines = [f"Task {task.id}: {task.type}", task.description[:_PART], f"Status: {task.status.value}, attempt {task.attempt}"]
    if task.assigned_executor:
        lines.append(f"Executor: {task.assigned_executor}" + (f" ({task.executor_type.value})" if task.executor_type else ""))
    if task.error is not None:
        lines.append(f"Error {task.error.code}: {task.error.message[:_PART]}")
        lines.append(f"Diagnostics: {_text(task.error.diagnostics)}")
    lines += [f"Input: {_text(task.input_data)}", f"Result: {_text(task.result)}"]
    return [line for line in lines if line and not line.endswith((": null", ": {}"))]


def _event_line(event: TaskEvent) -> str:
    return f"{event.name} by {event.actor}: {_text(event.data)[:500]}"


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).decode(errors="replace").replace("\x00", " ")[:_PART]


def _metadata(task: Task) -> dict[str, Any]:
    return {
        "taskId": task.id, "taskType": task.type[:200], "status": task.status.value, "executor": task.assigned_executor, "attempt": task.attempt,
        "error": task.error.code[:200] if task.error else None, "seconds": max(0.0, task.updated_at - task.created_at), "version": task.version,
    }  # fmt: skip
