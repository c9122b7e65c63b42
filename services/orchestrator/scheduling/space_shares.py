"""Fair shares between spaces: start-time fair queueing (Goyal, Vin and Cheng 1996), which is stride scheduling with a virtual clock.

The rule. Every space has a virtual start time; each task it is given moves it on by ``charge / weight``, where the charge is the task's expected
seconds (1 when unknown, at least 0.1, at most 3,600). Among the spaces that have a task for the offer and whose best task stands at most
``fairness_window`` points below the best of all, the one with the earliest start is served (of equal starts, the one whose best task as last
compared stands higher). So:

* spaces with work share executor time by their weights, however many tasks each has waiting;
* a space that comes (back) starts at the virtual clock, the latest start served so far: before every space that had its share, without
  credit for the time it had no work, and without a fresh start if it left and came back within its own charge;
* a space that had work but could not be served (no executor for it, others more urgent) keeps a claim of at most ``MOST_CREDIT_SECONDS``;
* a task more than the window above the others jumps the shares; its space is charged all the same and waits longer afterwards. Ageing
  (``policies``) ends every such jump.

Does not own: which task of a space is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.ready_task import ReadyTask

LEAST_CHARGE: Final = 0.1
MOST_CHARGE: Final = 3600.0
UNKNOWN_CHARGE: Final = 1.0
MOST_CREDIT_SECONDS: Final = 60.0
REMEMBERED: Final = 4096


class SpaceShares:
    """Who is next.

    Args:
        weights: share of each space, positive; 1 for those not named.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        if not all(0 < weight < math.inf for weight in self._weights.values()):
            raise ApplianceError("settings_invalid", "the weight of a space must be positive", hint="1 is the usual weight")
        self._clock = 0.0
        self._starts: dict[str, float] = {}

    def start(self, space: str) -> float:
        """Where it stands; the earliest is served first."""
        return max(self._starts.get(space, self._clock), self._clock - MOST_CREDIT_SECONDS / self._weight(space))

    def arrive(self, space: str) -> None:
        """It has work again after it had none."""
        self._starts[space] = max(self._starts.get(space, -math.inf), self._clock)
        if len(self._starts) > REMEMBERED:
            self._forget()

    def charge(self, space: str, task: ReadyTask) -> None:
        """It was given this task."""
        start = self.start(space)
        self._clock = max(self._clock, start)
        seconds = min(max(task.expected_seconds or UNKNOWN_CHARGE, LEAST_CHARGE), MOST_CHARGE)
        self._starts[space] = start + seconds / self._weight(space)

    def _weight(self, space: str) -> float:
        return self._weights.get(space, 1.0)

    def _forget(self) -> None:
        """Spaces at or before the clock start there anyway when they come; of those that wait, only credit is lost."""
        self._starts = {space: start for space, start in self._starts.items() if start > self._clock}
        if len(self._starts) > REMEMBERED // 2:  # all ahead of the clock: keep the ones that had most
            kept = sorted(self._starts.items(), key=lambda item: item[1])[-(REMEMBERED // 2) :]
            self._starts = dict(kept)
