"""A chat model over replicas: balanced, retried before the first token, hedged, shed when full.

The way of a request: a place in the bulkhead → a replica → its first event, with other tries while that is safe → the rest of that one answer.

Invariants:
1. After the first event nothing is tried again: what a replica began, it ends or breaks off.
2. Second tries (retries and hedges together) are paid from one budget, and none begins that could not end before the deadline.
3. Only errors that are marked ``retryable`` in their context are tried again: nothing was generated then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Self

from appliance.contracts.llm.v1.api import Capabilities, ChatModel, ChatRequest, Finish, ModelEvent
from appliance.kit.errors import ApplianceError
from services.llm.pool import metrics
from services.llm.pool.attempt import Attempt, unfinished
from services.llm.pool.balancing import choose
from services.llm.pool.breaker import BreakerLimits
from services.llm.pool.bulkhead import Bulkhead
from services.llm.pool.health_watch import HealthWatch
from services.llm.pool.replica import Replica
from services.llm.pool.retry_budget import RetryBudget
from services.llm.pool.timing import Timing
from services.llm.settings import LlmSettings


class PooledChatModel:
    """Implements ``ChatModel``; ``async with`` watches the health of its replicas.

    Args:
        replicas: address → an opened model; all of the same capabilities. Whoever opened them closes them.
        max_parallel: requests at once; 0 = as the settings say.
        hedge_after_seconds: 0 = never.
    """

    def __init__(
        self, alias: str, replicas: Sequence[tuple[str, ChatModel]], settings: LlmSettings, *,
        max_parallel: int = 0, hedge_after_seconds: float = 0.0, timing: Timing | None = None,
    ) -> None:  # fmt: skip
        self._alias = alias
        self._settings = settings
        self._timing = timing or Timing()
        limits = BreakerLimits(
            settings.breaker_failures, settings.breaker_error_share, settings.breaker_least_results,
            settings.breaker_window_seconds, settings.breaker_open_seconds, settings.breaker_longest_open_seconds,
        )  # fmt: skip
        self.replicas = tuple(Replica(alias, name, model, limits, self._timing) for name, model in replicas)
        self._capabilities = replicas[0][1].capabilities
        self._hedge_after_seconds = hedge_after_seconds if len(self.replicas) > 1 else 0.0
        self._budget = RetryBudget(settings.retry_share, settings.retry_reserve, self._timing)
        self._bulkhead = Bulkhead(max_parallel or settings.max_parallel, settings.max_waiting, settings.max_wait_seconds, self._shed)
        self._opened = AsyncExitStack()

    @property
    def capabilities(self) -> Capabilities:
        """Those of its replicas."""
        return self._capabilities

    async def __aenter__(self) -> Self:
        if len(self.replicas) > 1:  # of one there is nothing to choose, so nothing to know beforehand
            watch = HealthWatch(self.replicas, self._settings.health_interval_seconds, self._settings.health_timeout_seconds, self._timing)
            self._opened.push_async_callback(_ended, asyncio.create_task(watch.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ``ChatModel.stream``; also ``overloaded`` and ``unavailable``, with ``retry_after_seconds`` in the context."""
        await self._bulkhead.enter(request.deadline)
        try:
            self._budget.earn()
            attempt = await self._begun(request)
            try:
                last = attempt.first
                if last is not None:
                    yield last
                async for event in attempt.events:
                    last = event
                    yield event
                if type(last) is not Finish:
                    raise unfinished()
            except ApplianceError as error:
                attempt.blame(error)
                raise
            finally:
                await attempt.close()
        finally:
            self._bulkhead.leave()

    async def health(self) -> None:
        """When any replica can answer; raises the error of the first otherwise."""
        results = await asyncio.gather(*(replica.model.health() for replica in self.replicas), return_exceptions=True)
        if all(isinstance(result, BaseException) for result in results) and isinstance(results[0], BaseException):
            raise results[0]

    async def _begun(self, request: ChatRequest) -> Attempt:
        """An attempt that has its first event."""
        tried: list[Replica] = []
        failure: ApplianceError | None = None
        while True:
            try:
                attempt = Attempt(self._choose(request, tried), request, self._timing)
            except ApplianceError as none_left:
                raise (failure or none_left) from None
            tried.append(attempt.replica)
            try:
                return await (self._raced(attempt, request, tried) if self._hedge_after_seconds else _first(attempt))
            except ApplianceError as error:
                failure = error
                wait = self._wait(error, request, tried)
                if wait is None:
                    raise
                metrics.retries.labels(self._alias, error.code).inc()
            await self._timing.sleep(wait)

    def _choose(self, request: ChatRequest, tried: Sequence[Replica]) -> Replica:
        """A replica for the next try: a healthy one that was not tried, else any that may be asked."""
        able = [replica for replica in self.replicas if replica.may_be_asked()]
        if not able:
            raise self._nobody()
        fresh = [replica for replica in able if replica not in tried] or able
        return choose([replica for replica in fresh if replica.is_healthy] or fresh, request.affinity, self._timing.uniform)

    def _wait(self, error: ApplianceError, request: ChatRequest, tried: Sequence[Replica]) -> float | None:
        """Seconds before another try: exponential backoff with full jitter, and what the upstream asked for; None = no other try."""
        settings = self._settings
        if not error.context.get("retryable") or len(tried) >= settings.attempts:
            return None
        wait = self._timing.uniform(0, min(settings.longest_backoff_seconds, settings.backoff_seconds * 2 ** (len(tried) - 1)))
        if not any(replica.may_be_asked() and replica not in tried for replica in self.replicas):
            wait += min(replica.rest_left for replica in self.replicas)  # nobody else: it is the same one again, when it wants
        late = request.deadline is not None and self._timing.now() + wait >= request.deadline
        if late or wait > settings.longest_backoff_seconds or not self._budget.spend():
            return None
        return wait

    async def _raced(self, attempt: Attempt, request: ChatRequest, tried: list[Replica]) -> Attempt:
        """The first of two replicas to say something; the second is asked when the first is slow. The loser is closed."""
        racing = {asyncio.create_task(attempt.begin()): attempt}
        failure: BaseException | None = None
        try:
            done, _ = await asyncio.wait(racing, timeout=self._hedge_after_seconds)
            if not done and (second := self._second(request, tried)) is not None:
                racing[asyncio.create_task(second.begin())] = second
            hedged = len(racing) > 1
            while racing:
                done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    ready = racing.pop(task)
                    if task.exception() is None:
                        if hedged:
                            metrics.hedges.labels(self._alias, "lost" if ready is attempt else "won").inc()
                        return ready
                    failure = failure or task.exception()
            raise failure or AssertionError
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)
            for loser in racing.values():
                await loser.close()

    def _second(self, request: ChatRequest, tried: list[Replica]) -> Attempt | None:
        others = [replica for replica in self.replicas if replica not in tried and replica.is_healthy and replica.may_be_asked()]
        if not others or not self._budget.spend():
            return None
        replica = choose(others, request.affinity, self._timing.uniform)
        tried.append(replica)
        return Attempt(replica, request, self._timing)

    def _nobody(self) -> ApplianceError:
        """Why no replica may be asked."""
        seconds = max(1, math.ceil(min(replica.wait_left for replica in self.replicas)))
        if any(replica.rest_left for replica in self.replicas):
            self._shed("upstream_busy")
            return ApplianceError("overloaded", "the model server is busy", hint=f"try again in {seconds} s", retry_after_seconds=seconds)
        self._shed("breaker_open")
        problem = next((replica.last_problem for replica in self.replicas if replica.last_problem), "it failed too often")
        hint = f"it is tried again in {seconds} s; check the model server and `appliance doctor`"
        return ApplianceError("unavailable", f"the model server is left alone for a while: {problem}", hint=hint, retry_after_seconds=seconds)

    def _shed(self, why: str) -> None:
        metrics.shed.labels(self._alias, why).inc()


async def _first(attempt: Attempt) -> Attempt:
    await attempt.begin()
    return attempt


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
