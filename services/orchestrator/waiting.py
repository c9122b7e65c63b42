"""Callers who wait for a task to end or a question to be answered. Owns the futures; wakes them from the projection's changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.events import ApprovalDecided, Envelope
from services.orchestrator.domain.task_state import TaskState

MOST_WAITING: Final = 20_000


class Waiting:
    """``await waiting.for_key(id, seconds)``: True when it happened, False when the time was over. A listener of the projection."""

    def __init__(self) -> None:
        self._futures: dict[str, list[asyncio.Future[bool]]] = {}
        self._count = 0

    def changed(self, before: TaskState | None, after: TaskState, envelope: Envelope) -> None:
        """Wake whoever waits for this."""
        if not self._futures:
            return
        if after.is_terminal and not (before is not None and before.is_terminal):
            self._wake(after.id)
            for approval in after.approvals:
                self._wake(approval.id)
        for event in envelope.events:
            if isinstance(event, ApprovalDecided):
                self._wake(event.approval)

    async def for_key(self, key: str, seconds: float) -> bool:
        """Wait for a task or an approval, ``seconds`` at most; check the state before and after.

        Raises:
            ApplianceError: ``overloaded`` when too many wait.
        """
        if self._count >= MOST_WAITING:
            raise ApplianceError("overloaded", "too many callers wait", hint="ask again later")
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(key, []).append(future)
        self._count += 1
        timer = future.get_loop().call_later(seconds, _give_up, future)
        try:
            await future
            return not future.result()
        finally:
            timer.cancel()
            self._count -= 1
            waiting = self._futures.get(key)
            if waiting is not None:
                with suppress(ValueError):
                    waiting.remove(future)
                if not waiting:
                    del self._futures[key]

    def _wake(self, key: str) -> None:
        for future in self._futures.pop(key, ()):
            if not future.done():
                future.set_result(False)


def _give_up(future: asyncio.Future[bool]) -> None:
    """The time is over."""
    if not future.done():
        future.set_result(True)
