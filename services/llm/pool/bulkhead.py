"""So many requests of one model at once, a few more that wait in line, the rest refused at once: one slow model does not take the whole box with it.

Invariants: never more than ``parallel`` inside; never more than ``waiting`` in line, each at most ``wait_seconds``; first come, first served; a place that is given to
a waiter that has just left goes to the next one.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Literal

from appliance.kit.errors import ApplianceError

Refused = Callable[[Literal["queue_full", "queue_timeout"]], None]


class Bulkhead:
    """On one event loop. ``enter`` and ``leave`` come in pairs; ``refused`` is told of every request that is shed."""

    def __init__(self, parallel: int, waiting: int, wait_seconds: float, refused: Refused) -> None:
        self._free = parallel
        self._waiting = waiting
        self._wait_seconds = wait_seconds
        self._refused = refused
        self._line: deque[asyncio.Future[None]] = deque()

    async def enter(self, deadline: float | None) -> None:
        """Return when there is a place.

        Args:
            deadline: by the loop's clock; nobody waits past it.

        Raises:
            ApplianceError: ``overloaded`` with ``retry_after_seconds``.
        """
        if self._free > 0 and not self._line:
            self._free -= 1
            return
        if len(self._line) >= self._waiting:
            self._refused("queue_full")
            raise self._overloaded()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_seconds
        place = loop.create_future()
        self._line.append(place)
        try:
            async with asyncio.timeout_at(until if deadline is None else min(until, deadline)):
                await place
        except BaseException as error:
            self._leave_line(place)
            if isinstance(error, TimeoutError):
                self._refused("queue_timeout")
                raise self._overloaded() from error
            raise

    def leave(self) -> None:
        """Give the place to the first in line, or back."""
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _leave_line(self, place: asyncio.Future[None]) -> None:
        if place in self._line:
            self._line.remove(place)
        elif place.done() and not place.cancelled():  # it was given a place in the same moment
            self.leave()

    def _overloaded(self) -> ApplianceError:
        return ApplianceError(
            "overloaded",
            "this model has as many requests as it can take",
            hint="try again in a moment; the limit is max_parallel in models.toml",
            retry_after_seconds=max(1, math.ceil(self._wait_seconds)),
        )
