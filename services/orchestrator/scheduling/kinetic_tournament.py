"""The best of a changing set of contestants whose standings move with time (Basch, Guibas and Hershberger 1997: kinetic tournament).

A binary tree of matches. Every inner node keeps its winner and the time until which it surely wins: the soonest of its children's times and
the time at which the loser overtakes. Asking for the best plays again only the matches whose time is over; a change plays the matches on one
way to the root, and stops where nothing changed. Both cost O(log n).

Invariants: a node's time is never later than its children's; a result holds from the time it was computed on (when the clock runs back,
every match is played again). Does not own: heaps of tasks (``ready_group``); here only their heads play.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from services.orchestrator.scheduling.policies import SchedulingPolicy
from services.orchestrator.scheduling.ready_task import ReadyTask

Key = TypeVar("Key")
FIRST_CAPACITY: Final = 4


class Contestant:
    """A task in the queue, as it plays.

    Attributes:
        level: see the policy.
        deadline: ``math.inf`` without one, or when the policy does not look at deadlines.
        number: of equals the lowest goes first; in order of arrival, see ``ReadyQueue.push``.
        is_waiting: False once it was taken out; heaps drop it when they meet it.
    """

    __slots__ = ("deadline", "is_waiting", "level", "number", "task")

    def __init__(self, task: ReadyTask, policy: SchedulingPolicy, number: int) -> None:
        self.task, self.level, self.number = task, policy.level(task), number
        self.deadline = task.deadline if policy.uses_deadlines and task.deadline is not None else math.inf
        self.is_waiting = True

    def __lt__(self, other: Contestant) -> bool:
        """For heaps: only the same task before and after a change of its priority has the same number, and one of the two is gone."""
        return False


Standing = tuple[Contestant | None, float]  # who, and until when nothing changes


class KineticTournament(Generic[Key]):
    """One contestant for each key.

    Args:
        policy: gives the standings.
        renew: asked for a key whose own time is over; for keys that stand for a set of their own.
    """

    def __init__(self, policy: SchedulingPolicy, renew: Callable[[Key, float], Standing] | None = None) -> None:
        self._policy, self._renew = policy, renew
        self._capacity = FIRST_CAPACITY
        self._winner: list[Contestant | None] = [None] * (2 * FIRST_CAPACITY)
        self._until: list[float] = [math.inf] * (2 * FIRST_CAPACITY)
        self._keys: list[Key | None] = [None] * FIRST_CAPACITY
        self._place: dict[Key, int] = {}
        self._free = list(range(FIRST_CAPACITY))
        self._since = -math.inf

    def __len__(self) -> int:
        return len(self._place)

    def put(self, key: Key, standing: Standing, now: float) -> None:
        """The contestant of ``key`` is now this one; None takes the key out."""
        self._see(now)
        place = self._place.get(key)
        if place is None:
            if standing[0] is None:
                return
            place = self._take_place(key, now)
        elif standing[0] is None:
            del self._place[key]
            self._keys[place] = None
            self._free.append(place)
        node = self._capacity + place
        if self._winner[node] is standing[0] and self._until[node] == standing[1]:
            return
        self._winner[node], self._until[node] = standing
        node >>= 1
        while node and self._play(node, now):
            node >>= 1

    def best(self, now: float) -> Standing:
        """The best contestant at ``now`` and until when it surely is."""
        self._see(now)
        if self._until[1] <= now:
            self._refresh(1, now)
        return self._winner[1], self._until[1]

    def estimate(self, now: float) -> tuple[Contestant | None, float]:
        """Cheaper than :meth:`best`: a contestant, and how many points at most the best one may stand above it (0: it is the best).

        Nobody stood above the present winner's standing when its time was over (by induction over the matches, standings never fall), and
        since then nobody gained more than ``most_growth``.
        """
        self._see(now)
        until = self._until[1]
        return self._winner[1], self._policy.most_growth(now - until) if until <= now else 0.0

    def within(self, window: float, now: float, limit: int) -> Iterator[Contestant]:
        """Contestants of at most ``limit`` keys that stand at most ``window`` below the best, the best first."""
        first, _ = self.best(now)
        if first is None:
            return
        floor = self._standing(first, now) - window
        heap = [(-self._standing(first, now), first.deadline, first.number, 1)]
        while heap and limit:
            node = heapq.heappop(heap)[3]
            if node >= self._capacity:
                winner = self._winner[node]
                assert winner is not None
                yield winner
                limit -= 1
                continue
            for child in (2 * node, 2 * node + 1):
                winner = self._winner[child]
                if winner is not None and (standing := self._standing(winner, now)) >= floor:
                    heapq.heappush(heap, (-standing, winner.deadline, winner.number, child))

    def _standing(self, contestant: Contestant, now: float) -> float:
        return contestant.level + self._policy.urgency(contestant.deadline, now)

    def _play(self, node: int, now: float) -> bool:
        """Play one match; False when it ended as it stood."""
        left = 2 * node
        ahead, behind = self._winner[left], self._winner[left + 1]
        until = min(self._until[left], self._until[left + 1])
        if ahead is None or behind is None:
            ahead = ahead or behind
        else:
            policy, first, second = self._policy, ahead.level, behind.level
            if ahead.deadline != math.inf:
                first += policy.urgency(ahead.deadline, now)
            if behind.deadline != math.inf:
                second += policy.urgency(behind.deadline, now)
            if second > first or (second == first and (behind.deadline, behind.number) < (ahead.deadline, ahead.number)):
                ahead, behind = behind, ahead
            if behind.deadline != math.inf:
                until = min(until, policy.overtaken_at(ahead.level, ahead.deadline, behind.level, behind.deadline, now))
        if self._winner[node] is ahead and self._until[node] == until:
            return False
        self._winner[node], self._until[node] = ahead, until
        return True

    def _refresh(self, node: int, now: float) -> None:
        if node >= self._capacity:
            key = self._keys[node - self._capacity]
            standing = (self._winner[node], math.inf) if self._renew is None or key is None else self._renew(key, now)
            self._winner[node], self._until[node] = standing
            return
        for child in (2 * node, 2 * node + 1):
            if self._until[child] <= now:
                self._refresh(child, now)
        self._play(node, now)

    def _see(self, now: float) -> None:
        if now < self._since:  # the clock ran back: what was computed holds from then on only
            self._until = [-math.inf] * len(self._until)
            self._refresh(1, now)
        self._since = now

    def _take_place(self, key: Key, now: float) -> int:
        if not self._free:
            self._grow(now)
        place = self._free.pop()
        self._place[key], self._keys[place] = place, key
        return place

    def _grow(self, now: float) -> None:
        old, self._capacity = self._capacity, 2 * self._capacity
        self._winner = [None] * self._capacity + self._winner[old:] + [None] * old
        self._until = [math.inf] * self._capacity + self._until[old:] + [math.inf] * old
        self._keys += [None] * old
        self._free = list(range(old, 2 * old))
        for node in range(self._capacity - 1, 0, -1):
            self._play(node, now)
