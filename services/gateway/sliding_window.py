"""A sliding window counter in memory: at most ``limit`` hits in any minute, weighing the window before by what is left of it.

Own code rather than the ``limits`` library because of a measurement (docs/adr/0007): its memory storage starts a timer thread every 10 ms
under load and cost 17 % of a chat request; this costs 1 µs. A site with several gateways puts ``limits`` on Redis behind the same calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 60.0
_SWEEP_AT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a hit was within the limit, how many more are, and the seconds until one more would be (or the window turns)."""

    allowed: bool
    remaining: int
    reset_seconds: float


class SlidingWindow:
    """Counts hits by key. Bounded: keys of past windows are swept when there are many."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: dict[str, list[float]] = {}  # key → [window number, hits in it, hits in the one before]

    def hit(self, key: str, limit: int) -> Verdict:
        """Count one hit unless it is above ``limit``; refused hits are not counted."""
        now = self._now()
        window, into = divmod(now, WINDOW_SECONDS)
        row = self._row(key, window)
        weighted = row[1] + row[2] * (1.0 - into / WINDOW_SECONDS)
        if weighted + 1.0 > limit:
            return Verdict(allowed=False, remaining=0, reset_seconds=_wait(row, weighted, limit, into))
        row[1] += 1.0
        return Verdict(allowed=True, remaining=int(limit - weighted - 1.0), reset_seconds=WINDOW_SECONDS - into)

    def _row(self, key: str, window: float) -> list[float]:
        row = self._counts.get(key)
        if row is None:
            if len(self._counts) >= _SWEEP_AT:
                self._counts = {kept: counts for kept, counts in self._counts.items() if counts[0] >= window - 1}
            row = self._counts[key] = [window, 0.0, 0.0]
        elif row[0] != window:
            row[2] = row[1] if row[0] == window - 1 else 0.0
            row[0], row[1] = window, 0.0
        return row


def _wait(row: list[float], weighted: float, limit: int, into: float) -> float:
    """Seconds until the old hits have faded enough, at most until the window turns."""
    left = WINDOW_SECONDS - into
    if row[2] <= 0.0 or row[1] + 1.0 > limit:
        return left
    return min(left, (weighted + 1.0 - limit) / row[2] * WINDOW_SECONDS)
