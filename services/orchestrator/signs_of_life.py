"""Who lives: signs of life of executors, and how long claims hold. Owns the judgement that somebody is silent; what follows from it is the guardian's.

Everything is measured by this replica's monotonic clock from the moment of hearing. Of the wall clocks that wrote the times only differences are used
(until when, less when it was said), so a clock that is wrong, here or where it was written, neither ends a claim nor keeps one for ever.

Invariants:
1. Whoever was heard within its lease lives.
2. Who cannot hear does not judge: a replica that was cut off or stood still first listens again. Silence of all others is no proof of their death.
3. No sign of life lasts longer than the longest lease, however far ahead the clock of its sender is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.ports import Leases

DEAF_SHARE: Final = 2 / 3
"""Of a lease: heard nothing for so long = deaf. Executors renew three times per lease, so whoever is cut off is deaf before anybody seems silent to it."""
_ECHO_SHARE: Final = 1 / 3
_AGAIN_SECONDS: Final = 0.1
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Heard:
    incarnation: int
    until: float
    length: float
    at: float


class SignsOfLife:
    """See the module.

    Args:
        leases: where signs of life come from.
        name: of this replica: it speaks to hear itself, when nobody else speaks.
        lease_seconds: of the box's own executors.
        longest_seconds: of others.
        now, monotonic: clocks, wall and steady.
    """

    def __init__(
        self, leases: Leases, name: str, lease_seconds: float, longest_seconds: float, now: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._leases = leases
        self._echo_name = f"echo@{name}"
        self._lease_seconds = lease_seconds
        self._longest_seconds = max(longest_seconds, lease_seconds)
        self._now = now
        self._monotonic = monotonic
        self._heard: dict[str, _Heard] = {}
        self._claims: dict[str, tuple[int, float, float]] = {}
        self._news_at = self._looked_at = monotonic()
        self._judges_from = monotonic() + lease_seconds
        self._echo: asyncio.Task[None] | None = None

    def hear(self, executor_id: str, incarnation: int, until: float) -> None:
        """A sign of life that holds until ``until`` by the sender's wall clock."""
        length = max(until - self._now(), self._lease_seconds)
        self._heard[executor_id] = _Heard(incarnation, until, length, self._monotonic())

    def said_until(self, executor_id: str) -> float:
        """Until when it said to live; 0 when it never did."""
        known = self._heard.get(executor_id)
        return known.until if known is not None else 0.0

    async def listen_forever(self) -> None:
        """Take in signs of life."""
        while True:
            try:
                async for executor_id, incarnation, until in self._leases.watch():
                    self.hear(executor_id, incarnation, until)
                    self._news_at = self._monotonic()
            except ApplianceError as error:
                _log.warning("leases_interrupted", error=error.message)
            await asyncio.sleep(_AGAIN_SECONDS)

    def may_judge(self) -> bool:
        """Whether silence means anything now. To be asked every round: a long pause between two rounds means that this process stood still."""
        now = self._monotonic()
        quiet = now - self._news_at
        if quiet > self._lease_seconds * _ECHO_SHARE and (self._echo is None or self._echo.done()):
            self._echo = asyncio.get_running_loop().create_task(self._speak())
        if max(quiet, now - self._looked_at) > self._lease_seconds * DEAF_SHARE:
            self._judges_from = now + self._lease_seconds * DEAF_SHARE
        self._looked_at = now
        return now >= self._judges_from

    def lives(self, executor: ExecutorState) -> bool | None:
        """Whether this run of it was heard within its lease; None when it was never heard."""
        known = self._heard.get(executor.id)
        if known is None or known.incarnation != executor.incarnation:
            return None
        longest = self._lease_seconds if executor.replica else self._longest_seconds
        return self._monotonic() - known.at < min(known.length, longest)

    def renewed(self, state: TaskState, seconds: float, *, claimed: bool) -> None:
        """A claim was made or renewed for so long."""
        now = self._monotonic()
        known = self._claims.get(state.id)
        since = now if claimed or known is None or known[0] != state.token else known[1]
        self._claims[state.id] = state.token, since, now + min(seconds, self._longest_seconds)

    def let_go(self, task_id: str) -> None:
        """Nobody holds it any more."""
        self._claims.pop(task_id, None)

    def claim_holds(self, state: TaskState) -> bool:
        """Whether the claim was renewed within its own lease, whatever its executor says."""
        known = self._claims.get(state.id)
        if known is not None and known[0] == state.token:
            return self._monotonic() < known[2]
        now = self._now()
        return state.lease_until is not None and now < state.lease_until <= now + self._longest_seconds

    def held_for(self, state: TaskState) -> float:
        """Seconds since the claim was made, as far as this replica saw it."""
        known = self._claims.get(state.id)
        if known is not None and known[0] == state.token:
            return self._monotonic() - known[1]
        return self._now() - (state.assigned_at if state.assigned_at is not None else self._now())

    async def _speak(self) -> None:
        try:
            await self._leases.renew(self._echo_name, 0, self._now())
        except ApplianceError as error:
            _log.warning("echo_not_sent", error=error.message)
