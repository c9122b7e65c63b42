"""What was seen of each executor since this replica knows it: how many, how fast, at what cost. A listener of the projection; bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import PerformanceMetrics, TaskStatus
from services.orchestrator.domain.events import Envelope
from services.orchestrator.domain.task_state import TaskState

MOST_REMEMBERED: Final = 20_000
_NONE: Final = PerformanceMetrics()


class _Cost(msgspec.Struct):
    cost: float = 0.0


_COST: Final = msgspec.json.Decoder(_Cost)


class Performance:
    """Counts by executor id; the least recently seen are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, list[float]] = OrderedDict()

    def changed(self, before: TaskState | None, after: TaskState, _envelope: Envelope) -> None:
        """Take in the end of an attempt."""
        if before is None or not before.is_held or before.executor is None or before.assigned_at is None:
            return
        if after.status is TaskStatus.COMPLETED:
            self._count(before.executor, after.updated_at - before.assigned_at, _cost(after.metrics), failed=False)
        elif after.attempts > before.attempts:
            self._count(before.executor, 0.0, 0.0, failed=True)

    def of(self, executor_id: str) -> PerformanceMetrics:
        """Metrics of one executor."""
        known = self._known.get(executor_id)
        if known is None:
            return _NONE
        completed, failed, seconds, cost = known
        average = seconds / completed if completed else 0.0
        return PerformanceMetrics(completed=int(completed), failed=int(failed), average_latency=average, cost=cost)

    def _count(self, executor_id: str, seconds: float, cost: float, *, failed: bool) -> None:
        known = self._known.setdefault(executor_id, [0.0, 0.0, 0.0, 0.0])
        known[0] += not failed
        known[1] += failed
        known[2] += max(0.0, seconds)
        known[3] += cost
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)


def _cost(metrics: msgspec.Raw) -> float:
    if metrics == b"{}":
        return 0.0
    try:
        return _COST.decode(metrics).cost
    except (msgspec.DecodeError, msgspec.ValidationError):
        return 0.0
