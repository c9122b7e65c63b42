"""The circuit breaker of one upstream: after enough failures it is left alone for a while, then tried by one request at a time. Pure; time is given.

Invariants:
1. Closed: everything passes. It opens after ``failures`` in a row, or when at least ``least_results`` ended within the window and ``error_share`` of them failed.
2. Open: nothing passes until the time is up; the time doubles from one opening to the next, until it has closed again.
3. Half-open: one probe at a time. Its first sign of life closes the breaker, its failure opens it again; a probe that was left undecided frees its place.
4. A result counts only for the period in which its request began: what was sent before the breaker opened decides nothing about the upstream after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from services.llm.pool.timing import Timing

State = Literal["closed", "half_open", "open"]
_JITTER: Final = 0.2  # boxes that share an upstream do not come back to it in step


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When to open and for how long; defaults are those of ``LlmSettings``."""

    failures: int = 5
    error_share: float = 0.5
    least_results: int = 20
    window_seconds: float = 30.0
    open_seconds: float = 5.0
    longest_open_seconds: float = 60.0


class CircuitBreaker:
    """Every request that ``admits`` allowed calls ``begin`` once, and one of ``succeeded``, ``failed``, ``left`` with what that gave."""

    def __init__(self, limits: BreakerLimits, timing: Timing, changed: Callable[[State], None]) -> None:
        self._limits = limits
        self._timing = timing
        self._changed = changed
        self._state: State = "closed"
        self._period = 0
        self._probing = False
        self._openings = 0
        self._opens_until = 0.0
        self._in_a_row = 0
        self._half_began = timing.now()
        self._halves = [[0, 0], [0, 0]]  # (results, failures) of this half of the window and of the one before

    @property
    def state(self) -> State:
        """Now; an open breaker whose time is up is half-open."""
        if self._state == "open" and self._timing.now() >= self._opens_until:
            self._become("half_open")
        return self._state

    @property
    def seconds_left(self) -> float:
        """How long it stays open."""
        return max(0.0, self._opens_until - self._timing.now()) if self.state == "open" else 0.0

    def admits(self) -> bool:
        """Whether a request may pass."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self._probing)

    def begin(self) -> int:
        """A request passes; the period that its result belongs to."""
        if self.state == "half_open":
            self._probing = True
        return self._period

    def alive(self, period: int) -> None:
        """The answer has begun: enough for a probe; anything else is judged by its end."""
        if period == self._period and self._state == "half_open":
            self._openings = 0
            self._become("closed")

    def succeeded(self, period: int) -> None:
        """The upstream did its work, or refused for a reason that is the caller's."""
        self.alive(period)
        if period == self._period and self._state == "closed":
            self._in_a_row = 0
            self._count(failed=False)

    def failed(self, period: int) -> None:
        """The upstream did not answer, or broke off."""
        if period != self._period:
            return
        if self._state == "half_open":
            self._open()
            return
        self._in_a_row += 1
        self._count(failed=True)
        results, failures = (self._halves[0][column] + self._halves[1][column] for column in (0, 1))
        limits = self._limits
        if self._in_a_row >= limits.failures or (results >= limits.least_results and failures >= limits.error_share * results):
            self._open()

    def left(self, period: int) -> None:
        """The request ended without telling anything about the upstream."""
        if period == self._period:
            self._probing = False

    def _count(self, *, failed: bool) -> None:
        half = self._limits.window_seconds / 2
        elapsed = self._timing.now() - self._half_began
        if elapsed >= half:
            self._halves = [[0, 0], self._halves[0] if elapsed < 2 * half else [0, 0]]
            self._half_began = self._timing.now()
        self._halves[0][0] += 1
        self._halves[0][1] += failed

    def _open(self) -> None:
        self._openings += 1
        limits = self._limits
        seconds = min(limits.open_seconds * 2 ** min(self._openings - 1, 30), limits.longest_open_seconds)
        self._opens_until = self._timing.now() + seconds * self._timing.uniform(1 - _JITTER, 1 + _JITTER)
        self._become("open")

    def _become(self, state: State) -> None:
        self._state = state
        self._period += 1
        self._probing = False
        self._in_a_row = 0
        self._halves = [[0, 0], [0, 0]]
        self._changed(state)
