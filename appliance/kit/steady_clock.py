"""A wall clock that does not follow a jump at once. Owns when a jump is believed; where the time comes from is given.

Leases, backoffs and questions that expire are measured in wall time, because several machines and restarts share them. A clock that is set by mistake, or
steps back and forth, must not end them: after a jump the time goes on by the monotonic clock, and only when the new time has stood for ``patience_seconds``
is it taken over. Slow corrections (below ``jump_seconds`` between two looks) are followed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

JUMP_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 60.0


class SteadyClock:
    """``clock()`` is Unix seconds.

    Args:
        wall: Unix seconds, as the machine has them.
        monotonic: seconds that never jump.
        jump_seconds: a larger difference between the two since the last look is a jump.
        patience_seconds: how long a jump must stand until it is believed.
    """

    __slots__ = ("_jump_seconds", "_jumped_at", "_jumped_to", "_monotonic", "_offset", "_patience_seconds", "_wall")

    def __init__(
        self, wall: Callable[[], float], monotonic: Callable[[], float], *, jump_seconds: float = JUMP_SECONDS, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._jump_seconds = jump_seconds
        self._patience_seconds = patience_seconds
        self._offset = wall() - monotonic()
        self._jumped_to: float | None = None
        self._jumped_at = 0.0

    def __call__(self) -> float:
        elapsed = self._monotonic()
        offset = self._wall() - elapsed
        if abs(offset - self._offset) <= self._jump_seconds:
            self._offset, self._jumped_to = offset, None
        elif self._jumped_to is None or abs(offset - self._jumped_to) > self._jump_seconds:
            self._jumped_to, self._jumped_at = offset, elapsed
        elif elapsed - self._jumped_at >= self._patience_seconds:
            self._offset, self._jumped_to = offset, None
        return elapsed + self._offset
