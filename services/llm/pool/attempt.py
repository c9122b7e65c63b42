"""One request at one replica, from taking it to giving it back, and what its end says about the replica.

Invariants: the replica is given back exactly once; its breaker gets exactly one result; after ``close`` the replica no longer works on it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from appliance.contracts.llm.v1.api import ChatRequest, ModelEvent
from appliance.kit.errors import ApplianceError
from services.llm.pool.replica import Replica
from services.llm.pool.timing import Timing

_ITS_FAULT: Final = frozenset({"upstream_failed", "upstream_timeout", "unavailable", "internal"})


class Attempt:
    """``await begin()`` for the ``first`` event, then iterate ``events``, tell ``blame`` of an error, at last ``close()``."""

    def __init__(self, replica: Replica, request: ChatRequest, timing: Timing) -> None:
        self.replica = replica
        self.first: ModelEvent | None = None
        self._deadline = request.deadline
        self._timing = timing
        self._period = replica.take()
        self.events: AsyncGenerator[ModelEvent, None] = replica.model.stream(request)
        self._judged = self._closed = False

    async def begin(self) -> None:
        """Wait for the first event; closed when there is none. Raises ApplianceError."""
        try:
            self.first = await anext(self.events)
        except StopAsyncIteration:
            error = unfinished()
            self.blame(error)
            await self.close()
            raise error from None
        except BaseException as error:
            if isinstance(error, ApplianceError):
                self.blame(error)
            await self.close()
            raise
        self.replica.breaker.alive(self._period)

    async def close(self) -> None:
        """Stop and give the replica back; again: nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.events.aclose()
        finally:
            self._judge("left" if self.first is None else "succeeded")  # an answer that the caller left had begun well
            self.replica.give_back()

    def blame(self, error: ApplianceError) -> None:
        """The answer ended with ``error``; decides whose fault that was."""
        self.replica.last_problem = error.message
        wait = error.context.get("retry_after")
        if isinstance(wait, int | float):
            self.replica.rest(wait)
        if error.code == "overloaded":  # busy, not broken
            self._judge("left")
        elif error.code == "upstream_timeout" and self._deadline is not None and self._timing.now() >= self._deadline:
            self._judge("left")  # the caller's hurry says nothing about the replica
        else:
            self._judge("failed" if error.code in _ITS_FAULT else "succeeded")

    def _judge(self, result: str) -> None:
        if not self._judged:
            self._judged = True
            getattr(self.replica.breaker, result)(self._period)


def unfinished() -> ApplianceError:
    """The stream ended without a ``Finish``."""
    return ApplianceError("upstream_failed", "the model ended without finishing", hint="check the model server")
