"""How many second tries a pool may make, so that an outage is not answered with a storm. Pure; time is given.

A token bucket as in Finagle and gRPC ("retry throttling"): every request earns a share of a retry, a retry or a hedge spends one, and a small reserve comes back
with time so that a quiet box has some.
"""

from __future__ import annotations

from typing import Final

from services.llm.pool.timing import Timing

_REFILL_SECONDS: Final = 60.0


class RetryBudget:
    """Args: ``share``: retries per request in the long run; ``reserve``: the most that can be saved up, and what there is at first."""

    def __init__(self, share: float, reserve: int, timing: Timing) -> None:
        self._share = share
        self._reserve = float(reserve)
        self._timing = timing
        self._saved = self._reserve
        self._at = timing.now()

    def earn(self) -> None:
        """A request came."""
        self._saved = min(self._reserve, self._saved + self._share)

    def spend(self) -> bool:
        """Whether another try may be made; it is paid for then."""
        now = self._timing.now()
        self._saved = min(self._reserve, self._saved + (now - self._at) * self._reserve / _REFILL_SECONDS)
        self._at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
