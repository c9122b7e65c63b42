"""Prometheus metrics of pools and fallbacks. Replicas are labelled by address, which models.toml bounds to 65 for each model."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

breaker_state: Final = Gauge("llm_breaker_state", "Circuit breaker of a replica: 0 closed, 1 half-open, 2 open", ["model", "replica"])
healthy: Final = Gauge("llm_replica_healthy", "Whether the last health checks of a replica passed", ["model", "replica"])
outstanding: Final = Gauge("llm_replica_outstanding", "Requests that a replica is at work on", ["model", "replica"])
retries: Final = Counter("llm_retries_total", "Second tries before the first token", ["model", "code"])
hedges: Final = Counter("llm_hedges_total", "Second replicas asked because the first was slow, by who answered first", ["model", "outcome"])
shed: Final = Counter("llm_shed_total", "Requests refused before they were sent", ["model", "why"])
fallbacks: Final = Counter("llm_fallbacks_total", "Answers that came from another model", ["model", "to", "code"])
STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
