"""The registry's terms as the scheduler's. Pure."""

from __future__ import annotations

from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.projection import Projection
from services.orchestrator.scheduling.critical_path import critical_path_seconds
from services.orchestrator.scheduling.execution_history import ExecutionHistory
from services.orchestrator.scheduling.ready_task import ExecutorOffer, ReadyTask

_BYTES_PER_TOKEN = 4


def offer_of(state: ExecutorState, load: int, spaces: frozenset[str] | None) -> ExecutorOffer:
    """An executor that asks for work; ``spaces`` None = all."""
    capabilities = state.capabilities
    return ExecutorOffer(
        executor_id=state.id, executor_type=state.type, types=frozenset(capabilities.supported_task_types), load=load, max_load=state.max_load,
        context_window=capabilities.context_window_size, profile=capabilities.performance_profile, spaces=spaces,
    )  # fmt: skip


def ready_task(state: TaskState, projection: Projection, history: ExecutionHistory, now: float) -> ReadyTask:
    """A task that could start now. A task that comes back keeps its age: it counts from when it was made."""
    expected = history.expected_seconds(state.type)
    path = _critical_path(state.id, projection, history) if state.id in projection.dependents else expected
    return ReadyTask(
        id=state.id, space=state.space, type=state.type, enqueued_at=min(state.created_at, now), created_at=state.created_at,
        executor_type=state.executor_type, priority=state.priority, deadline=state.deadline, cost=history.expected_cost(state.type),
        expected_seconds=expected, critical_path_seconds=path, context_tokens=len(bytes(state.input_data)) // _BYTES_PER_TOKEN,
        dispatches=state.claims,
    )  # fmt: skip


def _critical_path(task_id: str, projection: Projection, history: ExecutionHistory) -> float:
    def waiting(one: str) -> list[str]:
        return [dependent for dependent in projection.dependents.get(one, ()) if dependent in projection.unmet]

    def seconds(one: str) -> float:
        known = projection.tasks.get(one)
        return history.expected_seconds(known.type) if known is not None else 0.0

    return critical_path_seconds(task_id, waiting, seconds)
