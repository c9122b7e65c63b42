"""Single flight: of several turns that ask the same with the same rights at once, one asks the model and the others wait for its answer.

Owns: who leads, who waits, what happens when the leader goes. Does not own: keys (equal keys mean equal rights), the store.

Invariants:
1. A key has at most one leader. A leader that is cancelled (its caller went away) hands over to the one who has waited longest; when it fails, or its
   answer may not be kept, all waiters go on alone: a failing model must not be asked by one after the other.
2. Nobody waits longer than ``wait_seconds``; beyond :data:`MAX_WAITERS` nobody waits.
3. A flight ends with its leader: nothing is left behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Literal

MAX_WAITERS: Final = 256
Outcome = bytes | Literal["lead", "alone"]


class Flights:
    """``await join(key)``: the bytes that the leader brought, ``lead`` (then exactly one of :meth:`land`, :meth:`hand_over`), or ``alone``."""

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._waiting: dict[bytes, deque[asyncio.Future[Outcome]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def join(self, key: bytes) -> Outcome:
        """See the class. A cancelled waiter that had just been made the leader hands over."""
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return "lead"
        if len(waiting) >= MAX_WAITERS or self._wait_seconds <= 0:
            return "alone"
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting.append(told)
        try:
            await asyncio.wait((told,), timeout=self._wait_seconds)
        except asyncio.CancelledError:
            if told.done() and told.result() == "lead":
                self.hand_over(key)
            raise
        finally:
            if told in waiting:
                waiting.remove(told)
        return told.result() if told.done() else "alone"

    def land(self, key: bytes, answer: bytes | None) -> None:
        """The leader has ended: with ``answer``, or with None, and then all go on alone."""
        for told in self._waiting.pop(key, ()):
            if not told.done():
                told.set_result("alone" if answer is None else answer)

    def hand_over(self, key: bytes) -> None:
        """The leader was cancelled: the next one leads."""
        waiting = self._waiting[key]
        while waiting:
            told = waiting.popleft()
            if not told.done():
                told.set_result("lead")
                return
        del self._waiting[key]
