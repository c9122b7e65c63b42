"""Whoever is being served is asked for again: a long answer ends soon after its bearer was revoked, disabled or has expired.

Does not decide who may do what; it repeats the question that the door asked. Answers shorter than ``CHECK_SECONDS`` pay for one timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final, Self, TypeVar

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway.error_bodies import internal_error

CHECK_SECONDS: Final = 1.0
Again = Callable[[], Awaitable[Principal]]
_T = TypeVar("_T")
_log = get_logger(__name__)


class AuthorityWatch:
    """``with AuthorityWatch(again) as watch``: cancels the current task when ``again`` refuses; ``watch.error`` says why.

    A cancellation while ``error`` is None came from elsewhere and must be passed on.
    """

    __slots__ = ("_again", "_armed", "_loop", "_task", "_timer", "_watcher", "error")

    def __init__(self, again: Again, *, armed: bool = True) -> None:
        self._again = again
        self._armed = armed
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._watcher: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None
        self.error: ApplianceError | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._armed:
            self.arm()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def arm(self) -> None:
        """Begin to check; for those who made the watch unarmed because most answers end before it is worth a timer."""
        self._timer = self._loop.call_later(CHECK_SECONDS, self._begin)

    def lost(self) -> ApplianceError | None:
        """Why authority was lost, None when it was not; takes back the cancellation that told so."""
        if self.error is not None and self._task is not None:
            self._task.uncancel()
        return self.error

    def _begin(self) -> None:
        self._watcher = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            while True:
                await self._again()
                await asyncio.sleep(CHECK_SECONDS)
        except ApplianceError as error:
            self.error = error
        except Exception:
            _log.exception("authority_check_failed")
            self.error = internal_error()
        if self._task is not None:
            self._task.cancel()


async def while_allowed(steps: AsyncIterator[_T], check: Callable[[], Awaitable[object]]) -> AsyncGenerator[_T, None]:
    """``steps`` for as long as ``check`` (every ``CHECK_SECONDS``, waiting or not) does not raise."""
    clock = asyncio.get_running_loop().time
    check_at = clock() + CHECK_SECONDS
    while True:
        following = asyncio.ensure_future(_next(steps))
        try:
            while not following.done():
                await asyncio.wait({following}, timeout=max(0.0, check_at - clock()))
                if clock() >= check_at:
                    await check()
                    check_at = clock() + CHECK_SECONDS
        finally:
            if not following.done():
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
        step = following.result()
        if step is None:
            return
        yield step[0]


async def _next(steps: AsyncIterator[_T]) -> tuple[_T] | None:
    async for step in steps:
        return (step,)
    return None
