"""Closes a response that has been silent for too long. One timer for a whole stream: ``asyncio.timeout`` around every read costs more than decoding what was read."""

from __future__ import annotations

import asyncio

import aiohttp


class SilenceWatch:
    """Set ``waiting_since`` (the loop's clock) before a read and None after it; ``expired`` says that the watch closed the response. ``stop`` at the end.

    Args:
        response: closed when it was waited for ``silence_seconds``, or at ``ends_at``.
    """

    __slots__ = ("_ends_at", "_handle", "_loop", "_response", "_silence_seconds", "expired", "now", "waiting_since")

    def __init__(self, response: aiohttp.ClientResponse, silence_seconds: float, ends_at: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._response = response
        self._silence_seconds = silence_seconds
        self._ends_at = ends_at
        self.waiting_since: float | None = None
        self.expired = False
        self._handle = self._loop.call_at(min(self._loop.time() + silence_seconds, ends_at), self._look)

    def stop(self) -> None:
        """It is not needed any more."""
        self._handle.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self.waiting_since is None else self.waiting_since  # a reader that takes its time is not the server's silence
        due = min(since + self._silence_seconds, self._ends_at)
        if now >= due:
            self.expired = True
            self._response.close()
        else:
            self._handle = self._loop.call_at(due, self._look)
