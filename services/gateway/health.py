"""``/healthz``, ``/readyz``, ``/metrics``, public keys and the OpenAPI document: no authentication, no model call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.gateway.asgi import Exchange
from services.gateway.measures import GatewayMetrics
from services.gateway.ports import Readiness, Sessions

_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Open addresses. Readiness has a deadline, so a stuck dependency is reported and not waited for."""

    def __init__(
        self, readiness: Readiness, sessions: Sessions, metrics: GatewayMetrics, openapi: Callable[[], dict[str, object]], timeout_seconds: float
    ) -> None:
        self._readiness = readiness
        self._sessions = sessions
        self._metrics = metrics
        self._openapi = openapi
        self._timeout_seconds = timeout_seconds

    async def alive(self, exchange: Exchange) -> None:
        """200 while the process lives."""
        await exchange.json(200, {"status": "alive"})

    async def ready(self, exchange: Exchange) -> None:
        """200 when every check passes, 503 otherwise; every check by name."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                checks = await self._readiness.checks()
        except TimeoutError:
            await exchange.json(
                503,
                {
                    "status": "not_ready",
                    "checks": {"readiness": {"ok": False, "detail": "the checks took too long", "seconds": self._timeout_seconds}},
                },
            )
            return
        ok = all(check.ok for check in checks.values())
        await exchange.json(200 if ok else 503, {"status": "ready" if ok else "not_ready", "checks": checks})

    async def metrics(self, exchange: Exchange) -> None:
        """Prometheus text."""
        text = await asyncio.to_thread(self._metrics.text)
        await exchange.start(200, [(b"content-type", _METRICS_TYPE), (b"content-length", b"%d" % len(text))])
        await exchange.body(text, more=False)

    async def keys(self, exchange: Exchange) -> None:
        """JSON Web Key Set of the built-in issuer."""
        await exchange.json(200, self._sessions.jwks(), [(b"cache-control", b"max-age=300")])

    async def openapi(self, exchange: Exchange) -> None:
        """The OpenAPI document."""
        await exchange.json(200, self._openapi())
