"""Asks every replica of a pool now and then whether it can answer. Owns when; what a result means is the replica's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from services.llm.pool.replica import Replica
from services.llm.pool.timing import Timing

_JITTER: Final = 0.2
_FIRST_WITHIN: Final = 0.1  # of the interval


class HealthWatch:
    """``run`` for the life of the pool; one check of a replica at a time, each bounded by ``timeout_seconds``."""

    def __init__(self, replicas: Sequence[Replica], interval_seconds: float, timeout_seconds: float, timing: Timing) -> None:
        self._replicas = replicas
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._timing = timing

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(self._watch(replica))

    async def _watch(self, replica: Replica) -> None:
        await self._timing.sleep(self._timing.uniform(0, _FIRST_WITHIN) * self._interval_seconds)
        while True:
            replica.checked(await self._problem(replica))
            await self._timing.sleep(self._interval_seconds * self._timing.uniform(1 - _JITTER, 1 + _JITTER))

    async def _problem(self, replica: Replica) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await replica.model.health()
        except Exception as error:  # whatever it is, the watch goes on
            return str(error)[:300] or type(error).__name__
        return None
