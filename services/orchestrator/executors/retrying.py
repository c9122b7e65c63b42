"""Retry with exponential backoff and jitter, for errors that pass by themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from appliance.kit.errors import ApplianceError

_T = TypeVar("_T")
TRANSIENT: Final = frozenset({"unavailable", "overloaded", "upstream_failed", "upstream_timeout", "rate_limited"})


@dataclass(frozen=True, slots=True)
class Backoff:
    """Try ``number`` waits ``min(first · factor^(number-1), most)`` seconds, ± ``jitter`` (a share)."""

    first_seconds: float = 0.2
    factor: float = 2.0
    most_seconds: float = 10.0
    jitter: float = 0.2

    def delay(self, number: int) -> float:
        """Seconds to wait after failure ``number`` (1 for the first)."""
        wait = min(self.first_seconds * self.factor ** min(number - 1, 60), self.most_seconds)
        return wait * (1 + self.jitter * (2 * random.random() - 1))  # noqa: S311 - no secret


def is_transient(error: Exception) -> bool:
    """Whether the same call may work a little later."""
    return isinstance(error, ApplianceError) and error.code in TRANSIENT


async def retry(
    call: Callable[[], Awaitable[_T]],
    *,
    attempts: int = 3,
    backoff: Backoff = Backoff(),
    when: Callable[[Exception], bool] = is_transient,
) -> _T:
    """``call()`` until it works, at most ``attempts`` times; raises what the last one raised, and at once what ``when`` does not hold for."""
    for number in range(1, attempts):
        try:
            return await call()
        except Exception as error:
            if not when(error):
                raise
        await asyncio.sleep(backoff.delay(number))
    return await call()
