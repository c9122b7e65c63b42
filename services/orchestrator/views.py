"""States as their readers see them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec

from appliance.contracts.orchestrator.v1.values import (
    ApprovalRequest,
    Executor,
    PerformanceMetrics,
    Task,
    TaskEvent,
)
from services.orchestrator.domain.events import Envelope, Event
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import ApprovalState, TaskState
from services.orchestrator.projection import Projection


def task_view(state: TaskState, projection: Projection, *, with_token: bool = False) -> Task:
    """The task on the wire; the fencing token only for its executor."""
    return Task(
        id=state.id, type=state.type, description=state.description, input_data=state.input_data, priority=state.priority, deadline=state.deadline,
        dependencies=state.dependencies, assigned_executor=state.executor, status=state.status, created_at=state.created_at,
        updated_at=state.updated_at, checkpoints=tuple(ref.id for ref in state.checkpoints), metadata=state.metadata, space=state.space,
        owner=state.owner, key=state.key, executor_type=state.executor_type, attempt=state.attempts + (1 if state.claims else 0),
        progress=state.progress, note=state.note, parent=state.parent, result=state.result, error=state.error,
        blocked_by=tuple(sorted(projection.unmet.get(state.id, ()))), not_before=state.not_before,
        fencing_token=state.token if with_token else 0, lease_until=state.lease_until, version=state.seq,
    )  # fmt: skip


def approval_view(state: TaskState, approval: ApprovalState) -> ApprovalRequest:
    """The question on the wire."""
    return ApprovalRequest(
        id=approval.id, task_id=state.id, space=state.space, action=approval.action, arguments=approval.arguments,
        arguments_digest=approval.arguments_digest, context=approval.context, requested_by=approval.requested_by,
        requested_at=approval.requested_at, expires_at=approval.expires_at, default_action=approval.default_action, status=approval.status,
        decided_by=approval.decided_by, decided_at=approval.decided_at, reason=approval.reason, modified_arguments=approval.modified_arguments,
        suggestion=approval.suggestion,
    )  # fmt: skip


def executor_view(state: ExecutorState, load: int, metrics: PerformanceMetrics, seen_at: float) -> Executor:
    """The executor on the wire."""
    return Executor(
        id=state.id, type=state.type, name=state.name, capabilities=state.capabilities, status=state.status, current_load=load,
        performance_metrics=metrics, version=state.version, endpoint=state.endpoint, max_load=state.max_load, owner=state.owner, seen_at=seen_at,
    )  # fmt: skip


@cache
def _wire_names(kind: type[Event]) -> tuple[tuple[str, str], ...]:
    """Fields of an event and their names on the wire: camelCase, as everywhere."""
    names = kind.__struct_fields__
    return tuple((name, "".join([head, *(part.title() for part in rest)])) for name in names for head, *rest in [name.split("_")])


def event_views(task_id: str, space: str, envelope: Envelope, sequence: int) -> Iterator[TaskEvent]:
    """The events of one envelope on the wire."""
    for event in envelope.events:
        fields = {wire: getattr(event, name) for name, wire in _wire_names(type(event))}
        name = type(event).__name__
        data = msgspec.Raw(b"{}") if name == "Compacted" else msgspec.Raw(msgspec.json.encode(fields))
        yield TaskEvent(sequence=sequence, at=envelope.at, name=name, task_id=task_id, space=space, actor=envelope.by, data=data)
