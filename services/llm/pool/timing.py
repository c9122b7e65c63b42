"""Where a pool takes time and chance from, in one value, so that tests can give both."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """``now``: monotonic seconds, the clock of ``ChatRequest.deadline``; ``sleep``: seconds; ``uniform(a, b)``: a number between the two."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform
