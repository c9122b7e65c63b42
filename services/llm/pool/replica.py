"""One replica as its pool sees it: how busy, how healthy, whether it may be asked. Owns its metrics and the log lines of its changes."""

from __future__ import annotations

from typing import Final

from appliance.contracts.llm.v1.api import ChatModel
from appliance.kit.logging import get_logger
from services.llm.pool import metrics
from services.llm.pool.breaker import BreakerLimits, CircuitBreaker, State
from services.llm.pool.timing import Timing

_log = get_logger(__name__)
_MISSED_CHECKS: Final = 2  # one missed check may be a hiccup
_LONGEST_REST_SECONDS: Final = 60.0


class Replica:
    """Args: ``alias``: of the model; ``name``: address of this replica."""

    def __init__(self, alias: str, name: str, model: ChatModel, limits: BreakerLimits, timing: Timing) -> None:
        self.alias, self.name, self.model = alias, name, model
        self.breaker: Final = CircuitBreaker(limits, timing, self._breaker_changed)
        self.outstanding = 0
        self.is_healthy = True
        self.last_problem = ""
        self._timing = timing
        self._missed = 0
        self._rests_until = 0.0
        self._gauge = metrics.outstanding.labels(alias, name)
        metrics.breaker_state.labels(alias, name).set(0)
        metrics.healthy.labels(alias, name).set(1)

    @property
    def rest_left(self) -> float:
        """Seconds for which the upstream has asked to be left alone."""
        return max(0.0, self._rests_until - self._timing.now())

    @property
    def wait_left(self) -> float:
        """Seconds until it may be asked, as far as that is known."""
        return max(self.rest_left, self.breaker.seconds_left)

    def may_be_asked(self) -> bool:
        """Neither resting nor cut off."""
        return not self.rest_left and self.breaker.admits()

    def rest(self, seconds: float) -> None:
        """It said ``Retry-After``."""
        self._rests_until = max(self._rests_until, self._timing.now() + min(seconds, _LONGEST_REST_SECONDS))

    def take(self) -> int:
        """A request goes to it; the breaker's period."""
        self.outstanding += 1
        self._gauge.inc()
        return self.breaker.begin()

    def give_back(self) -> None:
        """A request has left it."""
        self.outstanding -= 1
        self._gauge.dec()

    def checked(self, problem: str | None) -> None:
        """The result of a health check; None = it passed."""
        self._missed = 0 if problem is None else self._missed + 1
        healthy = self._missed < _MISSED_CHECKS
        if healthy == self.is_healthy:
            return
        self.is_healthy = healthy
        metrics.healthy.labels(self.alias, self.name).set(int(healthy))
        _log.warning("llm_replica_health", model=self.alias, replica=self.name, healthy=healthy, problem=problem or "")

    def _breaker_changed(self, state: State) -> None:
        metrics.breaker_state.labels(self.alias, self.name).set(metrics.STATES[state])
        _log.warning("llm_breaker", model=self.alias, replica=self.name, state=state, problem=self.last_problem)
