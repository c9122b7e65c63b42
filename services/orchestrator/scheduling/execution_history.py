"""What was seen of executors: success, time and money for each executor and task type, recent attempts counting more.

Exponentially weighted: an attempt counts ``1/n`` at first (a plain mean), never less than ``LEAST_STEP`` later, so about the last 20 attempts
speak. Bounded: pairs not seen for longest are forgotten. Does not own: metrics shown to people (``values.PerformanceMetrics``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

LEAST_STEP: Final = 0.1
PRIOR_SUCCESS: Final = 0.9
PRIOR_ATTEMPTS: Final = 2
MOST_PAIRS: Final = 10_000
MOST_TYPES: Final = 10_000


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """Attempts counted, share that succeeded (0–1; starts at a cautious guess), mean seconds and money of one."""

    count: int = 0
    success: float = PRIOR_SUCCESS
    seconds: float = 0.0
    cost: float = 0.0

    def after(self, *, succeeded: bool, seconds: float, cost: float) -> ExecutionRecord:
        """The record with one more attempt."""
        step = max(LEAST_STEP, 1 / (self.count + 1))
        trust = max(LEAST_STEP, 1 / (self.count + 1 + PRIOR_ATTEMPTS))
        return ExecutionRecord(
            self.count + 1,
            self.success + trust * (float(succeeded) - self.success),
            self.seconds + step * (max(seconds, 0.0) - self.seconds),
            self.cost + step * (max(cost, 0.0) - self.cost),
        )


UNSEEN: Final = ExecutionRecord()


class ExecutionHistory:
    """Records by executor and type, and by type alone.

    Args:
        default_seconds: expected time of a type never seen.
    """

    def __init__(self, *, default_seconds: float = 1.0, most_pairs: int = MOST_PAIRS, most_types: int = MOST_TYPES) -> None:
        self._default_seconds = default_seconds
        self._pairs: OrderedDict[tuple[str, str], ExecutionRecord] = OrderedDict()
        self._types: OrderedDict[str, ExecutionRecord] = OrderedDict()
        self._most_pairs, self._most_types = most_pairs, most_types

    def record(self, executor_id: str, task_type: str, *, succeeded: bool, seconds: float, cost: float = 0.0) -> None:
        """One attempt ended."""
        pair, before = (executor_id, task_type), self.of(executor_id, task_type)
        self._pairs[pair] = before.after(succeeded=succeeded, seconds=seconds, cost=cost)
        self._pairs.move_to_end(pair)
        if len(self._pairs) > self._most_pairs:
            self._pairs.popitem(last=False)
        if succeeded:  # a failure says nothing of how long the work takes
            self._types[task_type] = self._types.get(task_type, UNSEEN).after(succeeded=True, seconds=seconds, cost=cost)
            self._types.move_to_end(task_type)
            if len(self._types) > self._most_types:
                self._types.popitem(last=False)

    def of(self, executor_id: str, task_type: str) -> ExecutionRecord:
        """What is known of them together; a record of no attempts when nothing is."""
        return self._pairs.get((executor_id, task_type), UNSEEN)

    def expected_seconds(self, task_type: str) -> float:
        """Mean time of attempts of this type that succeeded."""
        record = self._types.get(task_type)
        return record.seconds if record else self._default_seconds

    def expected_cost(self, task_type: str) -> float:
        """Mean money of attempts of this type that succeeded; 0 when never seen."""
        return self._types.get(task_type, UNSEEN).cost
