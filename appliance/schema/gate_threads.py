"""Threads for schemas of callers: two, and a bounded queue before them.

A schema that was made to be slow costs seconds of CPU within its bounds. In the process's own pool a handful of them would make the audit log and the
databases wait; here they make other schemas wait. Does not own: what is done there (``gate``, ``answers``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeVar

from appliance.kit.errors import ApplianceError

THREADS: Final = 2
MOST_WAITING: Final = 128
_T = TypeVar("_T")


class GateThreads:
    """``await run(work)`` for work that needs no lock, no disk and no network. Use from any event loop.

    Args:
        most_waiting: beyond those that run; more are refused.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="schema-gate")
        self._most = THREADS + most_waiting
        self._inside = 0
        self._counting = threading.Lock()

    async def run(self, work: Callable[[], _T]) -> _T:
        """What ``work`` returns or raises. Work that nobody waits for any more is not begun; what has begun goes on to its end.

        Raises:
            ApplianceError: ``overloaded`` when too many wait.
        """
        with self._counting:
            if self._inside >= self._most:
                raise ApplianceError("overloaded", "too many schemas wait to be checked", hint="try again in a moment, or send smaller schemas")
            self._inside += 1
        context, left = copy_context(), threading.Event()

        def unless_left() -> _T:
            if left.is_set():
                raise ApplianceError("cancelled", "nobody waits for this schema any more", hint="none is needed")
            return context.run(work)

        done = self._threads.submit(unless_left)
        done.add_done_callback(self._leave)
        try:
            return await asyncio.shield(asyncio.wrap_future(done))  # shielded: its place in the queue is given back when it leaves it, not before
        except asyncio.CancelledError:
            left.set()
            raise

    def _leave(self, _done: Future[_T]) -> None:
        with self._counting:
            self._inside -= 1


GATE: Final = GateThreads()
"""Of this process."""
