"""Results of read-only calls that were begun before the model asked for them. Owns how long they may wait and when they must not be used any more.

Invariants:
1. A result is used at most once, by the same caller, agent, spaces and turn, for the same tool and arguments.
2. After a write began in a turn, nothing that was foreseen in it before is used.
3. At most :data:`MOST` wait; the oldest is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

from appliance.contracts.tools.v1.api import ToolContext, ToolOutcome
from services.agents import metrics
from services.agents.result_cache import rights_of

MOST: Final = 64
_Key = tuple[object, ...]


class Foresight:
    """What is under way.

    Args:
        seconds: how long a result may wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: OrderedDict[tuple[_Key, str, bytes], tuple[float, asyncio.Task[ToolOutcome]]] = OrderedDict()

    def begin(self, context: ToolContext, name: str, canonical: bytes, start: Callable[[], Coroutine[Any, Any, ToolOutcome]]) -> None:
        """Start it, unless it is under way."""
        key = (_turn(context), name, canonical)
        if key in self._waiting:
            return
        self._waiting[key] = (time.monotonic() + self._seconds, asyncio.create_task(start(), name=f"foreseen-{name}"))
        metrics.foreseen.labels("begun").inc()
        now = time.monotonic()
        while self._waiting and (len(self._waiting) > MOST or next(iter(self._waiting.values()))[0] < now):
            _, (_, oldest) = self._waiting.popitem(last=False)
            oldest.cancel()

    async def take(self, context: ToolContext, name: str, canonical: bytes) -> ToolOutcome | None:
        """The outcome (waited for), None when it was not foreseen."""
        found = self._waiting.pop((_turn(context), name, canonical), None)
        if found is None or found[0] < time.monotonic():
            if found is not None:
                found[1].cancel()
            return None
        try:
            outcome = await asyncio.shield(found[1])
        except asyncio.CancelledError:
            found[1].cancel()
            raise
        metrics.foreseen.labels("used").inc()
        return outcome

    def discard(self, context: ToolContext) -> None:
        """A write begins in this turn."""
        turn = _turn(context)
        for key in [key for key in self._waiting if key[0] == turn]:
            self._waiting.pop(key)[1].cancel()

    async def close(self) -> None:
        """Give everything up."""
        tasks = [task for _, task in self._waiting.values()]
        self._waiting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _turn(context: ToolContext) -> _Key:
    rights = repr(rights_of(context.principal))
    return (context.principal.subject, rights, context.agent, context.spaces, context.thread_id, context.trace_id, context.turn_id)
