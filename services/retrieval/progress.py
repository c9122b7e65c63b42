"""Who has come how far: the latest progress of each document in work, for people who watch. In memory; bounded by the work queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from appliance.contracts.retrieval.v1.documents import Progress


class ProgressBoard:
    """Latest-value broadcast: watchers may miss steps, never the last one."""

    def __init__(self) -> None:
        self._latest: dict[str, Progress] = {}
        self._watching: dict[str, set[asyncio.Event]] = {}

    def post(self, document_id: str, progress: Progress) -> None:
        """Publish the state of a document."""
        self._latest[document_id] = progress
        self._wake(document_id)

    def latest(self, document_id: str) -> Progress | None:
        """What was posted last; None when the document is not in work (the catalogue knows then)."""
        return self._latest.get(document_id)

    def settle(self, document_id: str) -> None:
        """The document left the queue: the catalogue speaks for it from now on."""
        self._latest.pop(document_id, None)
        self._wake(document_id)

    def touch(self, document_id: str) -> None:
        """The catalogue changed for this document (its chunks got vectors)."""
        self._wake(document_id)

    def _wake(self, document_id: str) -> None:
        for event in self._watching.get(document_id, ()):
            event.set()

    async def changes(self, document_id: str, *, poll_seconds: float = 1.0) -> AsyncGenerator[None]:
        """Yield at once, after every change, and every ``poll_seconds`` (a change may come from elsewhere)."""
        event = asyncio.Event()
        self._watching.setdefault(document_id, set()).add(event)
        try:
            while True:
                event.clear()
                yield
                with suppress(TimeoutError):
                    async with asyncio.timeout(poll_seconds):
                        await event.wait()
        finally:
            watching = self._watching[document_id]
            watching.discard(event)
            if not watching:
                del self._watching[document_id]
