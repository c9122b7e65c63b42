"""Prometheus series of the HTTP edge. One instance per application, so that tests and side-by-side boxes do not share counters.

Series about chat turns and models belong to the router.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class GatewayMetrics:
    """Children are looked up once and kept."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter("http_requests_total", "Requests by route, method and status.", ("route", "method", "status"), registry=registry)
        self.seconds = Histogram("http_request_duration_seconds", "Time until the answer ended.", ("route",), buckets=_SECONDS, registry=registry)
        self.sessions = Gauge("active_sessions", "Open chat streams and sockets.", registry=registry)
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._seconds: dict[str, Histogram] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request has ended. ``route`` is a template, never a raw path."""
        key = (route, method, status)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._requests[key] = self.requests.labels(route, method, str(status))
        counter.inc()
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = self.seconds.labels(route)
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Series of the gateway and of the whole process, in Prometheus text format."""
        own = generate_latest(self.registry)
        return own if self.registry is REGISTRY else own + generate_latest(REGISTRY)
