"""How well a task and an executor match: capability, load, cost, success and latency seen before.

Every part is in 0–1 and the weights are normalised, so a score is in 0–1 too. Whether they may be matched at all is ``ExecutorOffer.fits``;
here only the better of the possible is found. The same score serves both directions: several tasks for one executor that asks
(``ready_queue``), several executors for one task (``find_best_executor``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.orchestrator.scheduling.execution_history import ExecutionHistory
from services.orchestrator.scheduling.ready_task import ExecutorOffer, ReadyTask

COST_REFERENCE: Final = 1.0  # money at which half of the points for cost are lost
LATENCY_REFERENCE_SECONDS: Final = 60.0  # the same for time


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """What counts how much; only the proportions matter."""

    capability: float = 0.40
    load: float = 0.15
    cost: float = 0.10
    success: float = 0.25
    latency: float = 0.10


@dataclass(frozen=True, slots=True)
class Score:
    """The parts of a score, each 0–1, for whoever asks why."""

    capability: float
    load: float
    cost: float
    success: float
    latency: float

    def total(self, weights: ScoreWeights) -> float:
        """0–1."""
        pairs = (
            (weights.capability, self.capability),
            (weights.load, self.load),
            (weights.cost, self.cost),
            (weights.success, self.success),
            (weights.latency, self.latency),
        )
        return sum(weight * part for weight, part in pairs) / sum(weight for weight, _ in pairs)


def parts(task: ReadyTask, offer: ExecutorOffer, history: ExecutionHistory) -> Score:
    """The parts of the score. A task given out before counts failures harder: it shall not meet a bad executor twice."""
    record = history.of(offer.executor_id, task.type)
    seconds = record.seconds if record.count else offer.profile.average_latency
    cost = record.cost if record.count else offer.profile.cost_per_task
    return Score(
        capability=_capability(task, offer),
        load=max(0.0, 1 - offer.load / max(offer.max_load, 1)),
        cost=1.0 if task.executor_type is offer.executor_type else COST_REFERENCE / (COST_REFERENCE + max(cost, 0.0)),
        success=record.success ** (1 + min(task.dispatches, 5)),
        latency=LATENCY_REFERENCE_SECONDS / (LATENCY_REFERENCE_SECONDS + max(seconds, 0.0)),
    )


def score(task: ReadyTask, offer: ExecutorOffer, history: ExecutionHistory, weights: ScoreWeights | None = None) -> float:
    """How well they match, 0–1. Pure: the same arguments give the same score."""
    return parts(task, offer, history).total(weights or ScoreWeights())


def find_best_executor(
    task: ReadyTask, offers: Iterable[ExecutorOffer], history: ExecutionHistory, weights: ScoreWeights | None = None
) -> ExecutorOffer | None:
    """The executor with the best score among those that fit and have room; of equal ones the less loaded, then by name."""
    free = [offer for offer in offers if offer.load < offer.max_load and offer.fits(task)]
    return min(free, key=lambda offer: (-score(task, offer, history, weights), offer.load, offer.executor_id), default=None)


def _capability(task: ReadyTask, offer: ExecutorOffer) -> float:
    """Type by name 0.4, by ``*`` 0.1; the kind asked for 0.4 (wished for by the classifier 0.3, no wish 0.2); context that suffices 0.2."""
    named = 0.4 if task.type in offer.types else 0.1
    if task.executor_type is offer.executor_type:
        kind = 0.4
    elif task.preferred_type is None:
        kind = 0.2
    else:
        kind = 0.3 if task.preferred_type is offer.executor_type else 0.0
    has_room = not offer.context_window or task.context_tokens <= offer.context_window
    return named + kind + (0.2 if has_room else 0.0)
