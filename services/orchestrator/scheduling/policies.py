"""Scheduling policies: how much a ready task wants to be next.

A policy gives every task a *standing*: ``level + urgency(deadline, now)``, the higher the sooner; of equal ones the earlier deadline, then
the earlier pushed. The level
never changes while a task waits; only urgency moves, and only upwards, up to its cap at the deadline. That is what lets the ready queue stay
exact at any ``now`` without sorting again (``kinetic_tournament``): two tasks change places at a time that can be computed.

Ageing. A term that grows alike for everybody cancels out of every comparison; what is left of it is a bonus for having come earlier. So the
level contains ``-floor(enqueued_at / ageing_seconds_per_point)``: a waiting task is worth one point more than a newcomer for every
``ageing_seconds_per_point`` (default 30 s) it has waited. Nobody starves: after ``100 · 30 s`` = 50 minutes a task of priority 0 stands above
every newcomer of priority 100 (75 minutes when all newcomers are past a deadline). Within a slot of 30 s urgency decides, then order of arrival.

Does not own: fairness between spaces (``space_shares``) and who is the best executor (``scoring``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.ready_task import ReadyTask
from services.orchestrator.scheduling.scoring import ScoreWeights

NEVER: Final = math.inf
TOP_PRIORITY: Final = 100


class PolicyName(StrEnum):
    """Values of the setting."""

    DEADLINE = "deadline"
    FIFO = "fifo"
    COST = "cost"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Constants of the policies.

    Attributes:
        name: which policy.
        alpha: points a task gains at its deadline and keeps after it.
        beta: per second; ``ln 2 / beta`` seconds before its deadline a task has half of alpha (default: seven minutes).
        ageing_seconds_per_point: how long a task waits for one point.
        fairness_window: points by which a task must stand above those of other spaces to be taken although its space had its share
            (``space_shares``). The default lets urgency jump, and the default priority against the highest not.
        candidate_window: points that a better matching task may stand below the best one and still be taken instead.
        cost_reference: money at which a task or an executor counts as half as cheap as a free one.
        path_reference_seconds: critical path that earns half of the points of an endless one.
    """

    name: PolicyName = PolicyName.DEADLINE
    alpha: float = 50.0
    beta: float = math.log(2) / 420
    ageing_seconds_per_point: float = 30.0
    fairness_window: float = 50.0
    candidate_window: float = 5.0
    cost_reference: float = 1.0
    path_reference_seconds: float = 600.0

    def __post_init__(self) -> None:
        positive = (self.beta, self.ageing_seconds_per_point, self.cost_reference, self.path_reference_seconds)
        others = (self.alpha, self.fairness_window, self.candidate_window)
        if not (all(0 < value < math.inf for value in positive) and self.alpha < math.inf and all(value >= 0 for value in others)):
            raise ApplianceError("settings_invalid", "a constant of the scheduling policy is out of range", hint="all are positive numbers")


class SchedulingPolicy(Protocol):
    """Deadlines here are never None: a task without one has ``math.inf``."""

    @property
    def settings(self) -> PolicySettings:
        """Its constants."""
        ...

    @property
    def weights(self) -> ScoreWeights:
        """What counts when a task and an executor are matched."""
        ...

    @property
    def uses_deadlines(self) -> bool:
        """False: urgency is always 0, deadlines are not looked at."""
        ...

    def level(self, task: ReadyTask) -> float:
        """The part of the standing that never changes while the task waits."""
        ...

    def urgency(self, deadline: float, now: float) -> float:
        """The part that moves: never falls as ``now`` grows, never grows with ``deadline``, 0 without one."""
        ...

    def overtaken_at(self, level: float, deadline: float, behind_level: float, behind_deadline: float, now: float) -> float:
        """When a task that stands behind another one at ``now`` will stand level with it: ``NEVER``, or a time (``<= now``: about now)."""
        ...

    def most_growth(self, seconds: float) -> float:
        """Points by which urgency can grow in so many seconds, whatever the deadline."""
        ...


class DeadlineAwarePolicy:
    """``priority + α·e^(−β·(deadline − now))`` (document 000 §4.5), past the deadline ``priority + α``; with ageing."""

    weights = ScoreWeights()

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self._alpha, self._beta = settings.alpha, settings.beta
        self.uses_deadlines = settings.alpha > 0

    def level(self, task: ReadyTask) -> float:
        """See the port."""
        return task.priority - _slot(task, self.settings)

    def urgency(self, deadline: float, now: float) -> float:
        """See the port."""
        return self._alpha * math.exp(-self._beta * (deadline - now)) if deadline > now else self._alpha

    def overtaken_at(self, level: float, deadline: float, behind_level: float, behind_deadline: float, now: float) -> float:
        """See the port. Each case solves ``ahead(t) = behind(t)`` for t."""
        if behind_deadline <= now or behind_deadline == math.inf:  # it grows no more, and the other never falls
            return NEVER
        gap = level - behind_level
        if deadline == math.inf:
            return self._reaches(behind_deadline, gap)
        if behind_deadline < deadline:  # both grow, the one behind faster
            return self._reaches(behind_deadline, gap / -math.expm1(-self._beta * (deadline - behind_deadline)))
        return self._reaches(behind_deadline, gap + self._alpha)  # the one ahead is at its cap before it can be overtaken

    def most_growth(self, seconds: float) -> float:
        """See the port. Growth is steepest just before the deadline."""
        return -self._alpha * math.expm1(-self._beta * seconds)

    def _reaches(self, deadline: float, points: float) -> float:
        if points > self._alpha:
            return NEVER
        return deadline + math.log(points / self._alpha) / self._beta if points > 0 else -math.inf


class _TimelessPolicy:
    """Standings that do not move: deadlines are not looked at."""

    weights = ScoreWeights()
    uses_deadlines = False

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings

    def urgency(self, deadline: float, now: float) -> float:  # noqa: ARG002 the port's signature
        """See the port."""
        return 0.0

    def overtaken_at(self, level: float, deadline: float, behind_level: float, behind_deadline: float, now: float) -> float:  # noqa: ARG002 the port's
        """See the port."""
        return NEVER

    def most_growth(self, seconds: float) -> float:  # noqa: ARG002 the port's signature
        """See the port."""
        return 0.0


class FifoPolicy(_TimelessPolicy):
    """First submitted, first served, within a space; between spaces shares alone decide (its window is endless)."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(replace(settings, fairness_window=math.inf, candidate_window=0.0))

    def level(self, task: ReadyTask) -> float:
        """See the port."""
        return -(task.created_at or task.enqueued_at)


class CostOptimisedPolicy(_TimelessPolicy):
    """Least money first: cheap tasks before dear ones, and dear executors get what asks for them; priority counts a tenth. With ageing."""

    weights = ScoreWeights(capability=0.25, load=0.05, cost=0.5, success=0.15, latency=0.05)

    def level(self, task: ReadyTask) -> float:
        """See the port."""
        cheap = TOP_PRIORITY * self.settings.cost_reference / (self.settings.cost_reference + max(task.cost, 0.0))
        return cheap + task.priority / 10 - _slot(task, self.settings)


class ResourceOptimisedPolicy(_TimelessPolicy):
    """Least idle executors: the task that most work waits for goes first (longest critical path); priority counts a tenth. With ageing."""

    weights = ScoreWeights(capability=0.25, load=0.35, cost=0.0, success=0.15, latency=0.25)

    def level(self, task: ReadyTask) -> float:
        """See the port."""
        path = max(task.critical_path_seconds, task.expected_seconds, 0.0)
        return TOP_PRIORITY * path / (path + self.settings.path_reference_seconds) + task.priority / 10 - _slot(task, self.settings)


def make_policy(settings: PolicySettings) -> SchedulingPolicy:
    """The policy that the setting names."""
    policies: dict[PolicyName, type[DeadlineAwarePolicy | FifoPolicy | CostOptimisedPolicy | ResourceOptimisedPolicy]] = {
        PolicyName.DEADLINE: DeadlineAwarePolicy,
        PolicyName.FIFO: FifoPolicy,
        PolicyName.COST: CostOptimisedPolicy,
        PolicyName.RESOURCE: ResourceOptimisedPolicy,
    }
    return policies[settings.name](settings)


def effective_priority(policy: SchedulingPolicy, task: ReadyTask, now: float) -> float:
    """The standing as people read it, in points: 0–100 for its priority, up to alpha for its deadline, one for each slot it waited."""
    deadline = math.inf if task.deadline is None else task.deadline
    return policy.level(task) + policy.urgency(deadline, now) + now // policy.settings.ageing_seconds_per_point


def _slot(task: ReadyTask, settings: PolicySettings) -> float:
    return task.enqueued_at // settings.ageing_seconds_per_point
