"""How long a replaceable thing lives: until it is retired and its last user has left. Owns counting; what closing means is the caller's.

Used for models that are switched while the box runs: a stream or a batch that began with one keeps it to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Lifetime:
    """Counts users on one event loop.

    Args:
        close: called once, when it is retired and nobody uses it; must not raise.
    """

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close
        self._users = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def users(self) -> int:
        """How many use it now."""
        return self._users

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep it alive for the length of a block."""
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()
                self._settle()

    def retire(self) -> None:
        """Nobody new will use it: close it now, or when the last user leaves."""
        self._retired = True
        self._settle()

    async def idle(self) -> None:
        """Wait until nobody uses it."""
        await self._idle.wait()

    async def end(self) -> None:
        """Retire it and wait until it is closed, users or not: the process is stopping."""
        self._retired = True
        self._users = 0
        self._settle()
        if self._closing is not None:
            await self._closing

    def _settle(self) -> None:
        if self._retired and not self._users and self._closing is None:
            self._closing = asyncio.ensure_future(_awaited(self._close))


async def _awaited(close: Callable[[], Awaitable[None]]) -> None:
    await close()
