"""The feed for one reader at the edge: rights are asked for again every second, silence is told, and a change of rights takes up the feed anew.

Does not own: what a reader may see and when it is too slow (the orchestrator's feed).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Final

from appliance.contracts.orchestrator.v1.values import TaskEvent
from appliance.identity.principal import MEMBER, Principal, SpaceRole
from appliance.kit.errors import not_found
from services.gateway.authority import CHECK_SECONDS, Again
from services.gateway.orchestration import Orchestration

QUIET_SECONDS: Final = 15.0


class Following:
    """What one reader follows: everything it may see, one space, or one task. ``after`` is the last sequence that it has."""

    def __init__(self, house: Orchestration, again: Again, after: int | None = None, task_id: str | None = None, space: str | None = None) -> None:
        self._house = house
        self._again = again
        self.after = after
        self._task_id = task_id
        self._space = space

    async def check(self) -> Principal:
        """The reader as of now; raises ``not_found`` for a task or space that it may not see."""
        principal = await self._again()
        if self._task_id is not None:
            await self._house.tasks.get(principal, self._task_id)
        elif self._space is not None and MEMBER in principal.roles and not principal.may(self._space, SpaceRole.READER):
            raise not_found("space")  # an agent or operator that belongs to no space sees what the orchestrator lets it see
        return principal

    async def events(self) -> AsyncGenerator[TaskEvent | None, None]:
        """Events as they happen; None after ``QUIET_SECONDS`` without one. Raises what ``check`` and the feed raise."""
        principal = await self.check()
        while True:
            feed = self._house.feed.follow(principal, self.after, self._task_id, self._space)
            try:
                async with aclosing(self._while_unchanged(feed, principal)) as steps:
                    async for event in steps:
                        if event is not None:
                            self.after = event.sequence
                        yield event
            finally:
                await _close(feed)
            now = await self.check()
            if now == principal:
                return
            principal = now

    async def _while_unchanged(self, feed: AsyncIterator[TaskEvent], principal: Principal) -> AsyncGenerator[TaskEvent | None, None]:
        clock = asyncio.get_running_loop().time
        check_at, quiet_at = clock() + CHECK_SECONDS, clock() + QUIET_SECONDS
        while True:
            following = asyncio.ensure_future(_next(feed))
            try:
                while not following.done():
                    await asyncio.wait({following}, timeout=max(0.0, check_at - clock()))
                    if clock() >= check_at:
                        if await self.check() != principal:
                            return
                        check_at = clock() + CHECK_SECONDS
                    if clock() >= quiet_at and not following.done():
                        yield None
                        quiet_at = clock() + QUIET_SECONDS
            finally:
                if not following.done():
                    following.cancel()
                    with suppress(asyncio.CancelledError):
                        await following
            step = following.result()
            if step is None:
                return
            quiet_at = clock() + QUIET_SECONDS
            yield step[0]


async def _next(feed: AsyncIterator[TaskEvent]) -> tuple[TaskEvent] | None:
    async for event in feed:
        return (event,)
    return None


async def _close(feed: AsyncIterator[TaskEvent]) -> None:
    close = getattr(feed, "aclose", None)
    if close is not None:
        await close()
