"""What Prometheus sees of tasks (OBS-2 names). A listener of the projection: every replica counts what the log says.

Counters belong to the process, as everywhere in the house; where several replicas share one (tests), each counts.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from appliance.contracts.orchestrator.v1.values import TaskStatus
from services.orchestrator.domain.events import ApprovalDecided, Envelope, LeaseExpired
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.replica import Replica
from services.orchestrator.scheduling.ready_queue import ReadyQueue

_BUCKETS: Final = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800, 7200)
QUEUE_DEPTH: Final = Gauge("task_queue_depth", "Tasks that could start now.")
OPEN: Final = Gauge("tasks_open", "Tasks that have not ended.")
ENDED: Final = Counter("tasks_ended", "Tasks that ended.", ["status"])
LATENCY: Final = Histogram("executor_latency_seconds", "From claim to completion.", ["executor_type"], buckets=_BUCKETS)
EXPIRED: Final = Counter("leases_expired", "Claims that ended without a report.", ["reason"])
APPROVALS: Final = Counter("hitl_approvals", "Answered questions.", ["status"])


class Measures:
    """Counts for one replica."""

    def __init__(self, replica: Replica, queue: ReadyQueue) -> None:
        self._projection = replica.projection
        QUEUE_DEPTH.set_function(lambda: len(queue))
        OPEN.set_function(lambda: replica.projection.open_count)

    def changed(self, before: TaskState | None, after: TaskState, envelope: Envelope) -> None:
        """A listener of the projection."""
        if before is not None and after.is_terminal and not before.is_terminal:
            ENDED.labels(after.status).inc()
            if after.status is TaskStatus.COMPLETED and before.assigned_at is not None and before.executor is not None:
                executor = self._projection.executors.get(before.executor)
                LATENCY.labels(executor.type if executor is not None else "unknown").observe(max(0.0, after.updated_at - before.assigned_at))
        for event in envelope.events:
            if isinstance(event, LeaseExpired):
                EXPIRED.labels(event.reason).inc()
            elif isinstance(event, ApprovalDecided):
                APPROVALS.labels(event.status).inc()
