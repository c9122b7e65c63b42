"""Tasks that could start now, and which of them an executor gets.

A pop goes in three steps. 1. The space: ``space_shares`` says which, among those with a task for this offer that is not too far below the best.
2. The candidates: in that space, the best tasks of each (type, kind asked for) that stand at most ``candidate_window`` points below its best.
3. The best scored candidate (``scoring``), of equal ones the one that stands higher.

Standings are exact at ``now`` (see ``policies``). Cost: a pop looks at one number for each space, and at O(log) matches in the one it takes from;
a push or removal at O(log) matches. For every type filter that executors asked with, each space keeps a tournament of its groups (a view); the
views asked for least recently made are dropped. Not safe for threads: one event loop owns it. Does not own: leases, or whether the claim wins.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import count
from operator import itemgetter
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.execution_history import ExecutionHistory
from services.orchestrator.scheduling.kinetic_tournament import Contestant, KineticTournament, Standing
from services.orchestrator.scheduling.policies import SchedulingPolicy
from services.orchestrator.scheduling.ready_group import GroupKey, ReadyGroup
from services.orchestrator.scheduling.ready_task import ANY_TYPE, ExecutorOffer, ReadyTask, TypeFilter, takes
from services.orchestrator.scheduling.scoring import score
from services.orchestrator.scheduling.space_shares import SpaceShares

CAPACITY: Final = 1_000_000
MOST_CANDIDATES: Final = 8
MOST_VIEWS: Final = 64
_CAME_BACK: Final = 1 << 60  # taken off the number of a task that was given out before: of equals it goes first


class _SpaceQueue:
    """The ready tasks of one space."""

    __slots__ = ("_groups", "_policy", "_views", "size")

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._groups: dict[GroupKey, ReadyGroup] = {}
        self._views: dict[TypeFilter, KineticTournament[GroupKey]] = {}
        self.size = 0

    def add(self, contestant: Contestant, now: float) -> None:
        key = _group_key(contestant.task)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = ReadyGroup(key, self._policy)
        group.add(contestant, now)
        self.size += 1
        self._show(group, now)

    def take_out(self, contestant: Contestant, now: float) -> None:
        group = self._groups[_group_key(contestant.task)]
        group.take_out(contestant, now)
        self.size -= 1
        self._show(group, now)
        if not group.size:
            del self._groups[group.key]

    def view(self, type_filter: TypeFilter, now: float) -> KineticTournament[GroupKey]:
        """The groups that executors of this filter take from."""
        view = self._views.get(type_filter)
        if view is None:
            if len(self._views) >= MOST_VIEWS:
                del self._views[next(iter(self._views))]
            view = self._views[type_filter] = KineticTournament(self._policy, self._standing)
            for key in self._keys(type_filter):
                view.put(key, self._groups[key].standing(now), now)
        return view

    def _keys(self, type_filter: TypeFilter) -> list[GroupKey]:
        types, kind = type_filter
        if ANY_TYPE in types or 2 * len(types) > len(self._groups):
            return [key for key in self._groups if takes(type_filter, *key)]
        return [key for name in types for key in ((name, None), (name, kind)) if key in self._groups]

    def _show(self, group: ReadyGroup, now: float) -> None:
        standing = group.standing(now)
        for type_filter, view in self._views.items():
            if takes(type_filter, *group.key):
                view.put(group.key, standing, now)

    def _standing(self, key: GroupKey, now: float) -> Standing:
        return self._groups[key].standing(now)


_Leader = tuple[str, _SpaceQueue, Contestant | None, float]  # a good task of a space, and how far above it the best may stand


class ReadyQueue:
    """See the module.

    Args:
        policy: standings, windows and weights of the score.
        shares: fairness between spaces.
        history: what was seen of executors.
        capacity: tasks held at most; the box's limits (``admission``) are reached first.
    """

    def __init__(
        self, policy: SchedulingPolicy, shares: SpaceShares | None = None, history: ExecutionHistory | None = None, *, capacity: int = CAPACITY
    ) -> None:
        self._policy, self._capacity = policy, capacity
        self._shares = shares or SpaceShares()
        self._history = history or ExecutionHistory()
        self._spaces: dict[str, _SpaceQueue] = {}
        self._waiting: dict[str, Contestant] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._waiting

    def push(self, task: ReadyTask, now: float) -> None:
        """Let it wait, behind its equals, before them when it was given out already; a task with the same id that waits already is replaced.

        Raises:
            ApplianceError: ``overloaded`` when the queue is full.
        """
        if task.id not in self._waiting and len(self._waiting) >= self._capacity:
            raise ApplianceError("overloaded", "too many tasks are ready", hint="wait for executors to catch up", retry_after_seconds=5.0)
        self.remove(task.id, now)
        number = next(self._numbers) - (_CAME_BACK if task.dispatches else 0)
        self._add(Contestant(task, self._policy, number), now)

    def remove(self, task_id: str, now: float) -> bool:
        """It waits no more (cancelled, paused, claimed elsewhere); False when it did not wait."""
        contestant = self._waiting.pop(task_id, None)
        if contestant is None:
            return False
        name = contestant.task.space
        space = self._spaces[name]
        space.take_out(contestant, now)
        if not space.size:
            del self._spaces[name]
        return True

    def set_priority(self, task_id: str, priority: int, now: float) -> bool:
        """Change its priority; it keeps its age and its place among equals. False when it did not wait."""
        before = self._waiting.get(task_id)
        if before is None:
            return False
        self.remove(task_id, now)
        self._add(Contestant(replace(before.task, priority=priority), self._policy, before.number), now)
        return True

    def pop(self, offer: ExecutorOffer, now: float) -> str | None:
        """Take out the task this executor shall do next; None when there is none for it."""
        found = self._choose(offer, now)
        if found is None:
            return None
        self._shares.charge(found.space, found)
        self.remove(found.id, now)
        return found.id

    def peek(self, offer: ExecutorOffer, now: float) -> str | None:
        """What :meth:`pop` would give."""
        found = self._choose(offer, now)
        return found.id if found else None

    def get(self, task_id: str) -> ReadyTask | None:
        """A task that waits."""
        contestant = self._waiting.get(task_id)
        return contestant.task if contestant else None

    def sizes(self) -> Counter[str]:
        """Waiting tasks of each space."""
        return Counter({name: space.size for name, space in self._spaces.items()})

    def _add(self, contestant: Contestant, now: float) -> None:
        name = contestant.task.space
        space = self._spaces.get(name)
        if space is None:
            space = self._spaces[name] = _SpaceQueue(self._policy)
            self._shares.arrive(name)
        space.add(contestant, now)
        self._waiting[contestant.task.id] = contestant

    def _choose(self, offer: ExecutorOffer, now: float) -> ReadyTask | None:
        chosen = self._choose_space(offer, now)
        if chosen is None:
            return None
        window = self._policy.settings.candidate_window
        candidates = chosen.view(offer.type_filter, now).within(window, now, MOST_CANDIDATES if window else 1)
        return max((found.task for found in candidates), key=lambda task: score(task, offer, self._history, self._policy.weights))

    def _choose_space(self, offer: ExecutorOffer, now: float) -> _SpaceQueue | None:
        """Estimates decide as long as they can: within seconds nobody gains more than a point, and the window is wide."""
        views = [
            (name, space, space.view(offer.type_filter, now)) for name, space in self._spaces.items() if offer.spaces is None or name in offer.spaces
        ]
        chosen, is_sure = self._fair_choice([(name, space, *view.estimate(now)) for name, space, view in views], now)
        if not is_sure:
            chosen, _ = self._fair_choice([(name, space, view.best(now)[0], 0.0) for name, space, view in views], now)
        return chosen

    def _fair_choice(self, leaders: list[_Leader], now: float) -> tuple[_SpaceQueue | None, bool]:
        """The rule of ``space_shares``; False when standings are not known well enough to tell."""
        urgency, start, window = self._policy.urgency, self._shares.start, self._policy.settings.fairness_window
        found: list[tuple[float, float, str, _SpaceQueue]] = []
        least_top = most_top = -math.inf
        for name, space, contestant, above in leaders:
            if contestant is None:
                continue
            standing = contestant.level + urgency(contestant.deadline, now)
            least_top, most_top = max(least_top, standing), max(most_top, standing + above)
            found.append((standing, above, name, space))
        if not found:
            return None, True
        possible = [(start(name), -standing, name, space) for standing, above, name, space in found if standing + above >= least_top - window]
        _, standing, _, space = min(possible, key=itemgetter(0, 1, 2))
        return space, -standing >= most_top - window


def _group_key(task: ReadyTask) -> GroupKey:
    return task.type, None if task.executor_type is None else task.executor_type.value
