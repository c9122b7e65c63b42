"""Ready tasks that any executor takes or leaves alike: one space, one type, one kind of executor asked for.

Kept so that the best of them is always one of a few heads: tasks without a deadline in one heap by level, those with one in a heap by deadline
for each level (of equal levels the earlier deadline is never behind, whatever the time). The heads play a kinetic tournament.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

from services.orchestrator.scheduling.kinetic_tournament import Contestant, KineticTournament, Standing
from services.orchestrator.scheduling.policies import SchedulingPolicy

GroupKey = tuple[str, str | None]  # task type, kind of executor asked for
Heap = list[tuple[float, int, Contestant]]
UNDATED: Final = math.inf  # stands for the heap of tasks without a deadline; no level is endless
LEAST_TO_TIDY: Final = 64


class ReadyGroup:
    """See the module."""

    __slots__ = ("_heads", "_heaps", "_stale", "key", "size")

    def __init__(self, key: GroupKey, policy: SchedulingPolicy) -> None:
        self.key = key
        self.size = 0
        self._heads: KineticTournament[float] = KineticTournament(policy)
        self._heaps: dict[float, Heap] = {}
        self._stale: dict[float, int] = {}  # taken out, still in the heap

    def add(self, contestant: Contestant, now: float) -> None:
        """Let it wait here."""
        self.size += 1
        level = _heap_of(contestant)
        heap = self._heaps.setdefault(level, [])
        heapq.heappush(heap, _entry(contestant))
        if heap[0][2] is contestant:
            self._heads.put(level, (contestant, math.inf), now)

    def take_out(self, contestant: Contestant, now: float) -> None:
        """It waits no more."""
        self.size -= 1
        contestant.is_waiting = False
        level = _heap_of(contestant)
        heap = self._heaps[level]
        if heap[0][2] is not contestant:
            self._leave_stale(level, heap)
            return
        heapq.heappop(heap)
        while heap and not heap[0][2].is_waiting:
            heapq.heappop(heap)
            self._stale[level] -= 1
        self._heads.put(level, (heap[0][2] if heap else None, math.inf), now)
        if not heap:
            del self._heaps[level]
            self._stale.pop(level, None)

    def standing(self, now: float) -> Standing:
        """The best of them, and until when it surely is."""
        return self._heads.best(now)

    def _leave_stale(self, level: float, heap: Heap) -> None:
        """What was taken out from the middle stays until half of the heap is such."""
        stale = self._stale[level] = self._stale.get(level, 0) + 1
        if stale >= LEAST_TO_TIDY and 2 * stale > len(heap):
            heap[:] = [entry for entry in heap if entry[2].is_waiting]
            heapq.heapify(heap)
            self._stale[level] = 0


def _heap_of(contestant: Contestant) -> float:
    return UNDATED if contestant.deadline == math.inf else contestant.level


def _entry(contestant: Contestant) -> tuple[float, int, Contestant]:
    return (-contestant.level if contestant.deadline == math.inf else contestant.deadline), contestant.number, contestant
