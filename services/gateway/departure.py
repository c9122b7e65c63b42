"""Notices that the client of a long answer has left, without paying for it on short ones.

ASGI tells about a departure only to those who ask ``receive``. Asking needs a task; most answers end before it is worth starting one.
So a timer starts the task once an answer has lasted ``GRACE_SECONDS``; it also ends answers that last too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal, Self

from services.gateway.asgi import Receive

GRACE_SECONDS: Final = 0.05


class DepartureWatch:
    """``with DepartureWatch(receive, max_seconds, lasting) as watch``: cancels the current task when the client leaves or time is up.

    ``lasting`` is called once when the answer has outlived the grace. ``watch.reason`` says which; a cancellation while it is None came from elsewhere and must be passed on.
    """

    __slots__ = ("_lasting", "_loop", "_max_seconds", "_receive", "_task", "_timer", "_watcher", "reason")

    def __init__(self, receive: Receive, max_seconds: float, lasting: Callable[[], None]) -> None:
        self._lasting = lasting
        self._receive = receive
        self._max_seconds = max_seconds
        self._loop = asyncio.get_running_loop()
        self._watcher: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None
        self.reason: Literal["left", "time"] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(GRACE_SECONDS, self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = self._loop.create_task(self._watch())
        self._lasting()

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(self._max_seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            self.reason = "left"
        except TimeoutError:
            self.reason = "time"
        if self._task is not None:
            self._task.cancel()
