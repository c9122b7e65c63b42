"""The outermost ASGI application: one place where every request is named, let in, limited, recorded, measured and answered for.

Hot paths are plain ASGI handlers found by (method, path); everything else goes to the FastAPI application inside. Paths below ``/api/`` and
``/v1/`` need a principal unless they are listed as open: a new route is closed by default.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final

from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import correlation_id, get_logger
from appliance.kit.telemetry import request_span
from services.gateway.asgi import AsgiApp, BeforeAnswer, Exchange, Gone, Receive, Scope, Send
from services.gateway.authentication import ALLOWED, DENIED, DENYING, Door, client_address
from services.gateway.error_bodies import error_body, error_headers, internal_error
from services.gateway.identifiers import next_identifier
from services.gateway.limits import EndpointClass, RateLimits
from services.gateway.measures import GatewayMetrics

Handler = Callable[[Exchange], Awaitable[None]]
PRINCIPAL: Final = "appliance.principal"
AGAIN: Final = "appliance.again"
OPEN_PATHS: Final = frozenset({"/api/auth/login", "/api/auth/refresh", "/api/auth/logout"})
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SEARCHES: Final = frozenset({"/api/search", "/v1/embeddings", "/v1/rerank", "/api/knowledge/search", "/api/knowledge/query"})
_UPLOADS: Final = frozenset({"/api/documents", "/v1/files", "/api/templates"})
_CHATS: Final = frozenset({"/api/reports", "/api/sgr/format"})
_WORK: Final = re.compile(
    r"/api/(?:executors/[^/]+/(?:claim|heartbeat)|tasks/[^/]+/(?:progress|checkpoint|complete|fail|delegate|continue|steps|approvals|effects/.*))"
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_GONE: Final = 499
_NO_SUCH_SOCKET: Final = 4401
_log = get_logger(__name__)


class Front:
    """``Front(...)(scope, receive, send)``."""

    def __init__(
        self,
        inner: AsgiApp,
        hot: Mapping[tuple[str, str], Handler],
        sockets: Mapping[str, Callable[[Scope, Receive, Send, str], Awaitable[None]]],
        door: Door,
        limits: RateLimits,
        metrics: GatewayMetrics,
        lifetime: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._inner = inner
        self._hot = hot
        self._hot_methods: dict[str, list[str]] = {}
        for method, path in hot:
            self._hot_methods.setdefault(path, []).append(method)
        self._sockets = sockets
        self._door = door
        self._limits = limits
        self._metrics = metrics
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        correlation_id.set(request_id)
        if scope["type"] == "websocket":
            await self._converse(scope, receive, send, request_id)
            return
        started = time.perf_counter()
        exchange = Exchange(scope, receive, send, request_id, headers)
        status = 0
        try:
            await self._traced(exchange)
            status = exchange.status
        except Gone:
            status = _CLIENT_GONE
        except ApplianceError as error:
            await self._refuse(exchange, error)
            status = exchange.status
        except Exception:
            if exchange.refusal is None:
                _log.exception("request_failed", path=scope["path"][:200])
            await self._refuse(exchange, exchange.refusal or internal_error())
            status = exchange.status
        finally:
            method = scope["method"]
            self._metrics.answered(self._route(scope), method if method in _METHODS else "other", status, time.perf_counter() - started)

    async def _converse(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """The socket of the path; there are no others."""
        socket = self._sockets.get(scope["path"])
        if socket is not None:
            await socket(scope, receive, send, request_id)
        elif (await receive())["type"] == "websocket.connect":
            await send({"type": "websocket.close", "code": _NO_SUCH_SOCKET})

    async def _traced(self, exchange: Exchange) -> None:
        """What is asked for by POST is work, and gets a trace; looks at the page, at health and at lists do not."""
        if exchange.scope["method"] != "POST":
            await self._serve(exchange)
            return
        with request_span("gateway.request", exchange.headers.get(b"traceparent")) as current:
            try:
                await self._serve(exchange)
            finally:
                if current.is_recording():
                    current.set_attributes({names.REQUEST: exchange.request_id, "http.request.method": "POST", "http.route": self._route(exchange.scope)})
                    if exchange.status:
                        current.set_attribute("http.response.status_code", exchange.status)

    async def _serve(self, exchange: Exchange) -> None:
        scope = exchange.scope
        path = scope["path"]
        handler = self._hot.get((scope["method"], path))
        if handler is not None:
            await handler(exchange)
        elif path in self._hot_methods:
            allowed = ", ".join(self._hot_methods[path]).encode("ascii")
            raise ApplianceError("method_not_allowed", "this address does not take that method", headers=((b"allow", allowed),))
        else:
            if path.startswith(("/api/", "/v1/")):
                await self._admit(exchange, path)
            await self._inner(scope, exchange.receive, exchange.send)

    async def _admit(self, exchange: Exchange, path: str) -> None:
        """Let the caller in, and arrange that the decision is on record before the answer leaves."""
        scope = exchange.scope
        actor = "anonymous"
        if path not in OPEN_PATHS:
            address = client_address(scope)
            principal = await self._door.principal(
                exchange.headers.get(b"authorization"), address, action=f"{scope['method']} {path[:200]}", correlation_id=exchange.request_id
            )
            scope[PRINCIPAL] = principal
            actor = principal.subject
            scope[AGAIN] = partial(self._door.again, exchange.headers.get(b"authorization"))
            exchange.before_answer = self._refusal(scope, actor, exchange.request_id)
            exchange.extra_headers = self._limits.take(principal, _endpoint_class(scope["method"], path))
        exchange.before_answer = self._recorder(scope, actor, exchange.request_id)

    def _refusal(self, scope: Scope, actor: str, request_id: str) -> BeforeAnswer:
        """The record of a caller who is known but asks too much; a flood is cut to a few a minute."""

        async def record(status: int) -> None:
            if self._limits.may_record_denial(actor):
                await self._recorder(scope, actor, request_id)(status)

        return record

    def _recorder(self, scope: Scope, actor: str, request_id: str) -> BeforeAnswer:
        async def record(status: int) -> None:
            outcome = DENIED if status in DENYING else ALLOWED
            action = f"{scope['method']} {self._route(scope)}"
            await self._door.record(actor, action, scope["path"][:200], outcome, request_id, {"status": status})

        return record

    def _route(self, scope: Scope) -> str:
        """Template of the route, so that metrics and audit have few names."""
        path: str = scope["path"]
        if path in self._hot_methods:
            return path
        route = scope.get("route")
        template: Any = getattr(route, "path", None)
        return template if isinstance(template, str) else "unmatched"

    async def _refuse(self, exchange: Exchange, error: ApplianceError) -> None:
        if exchange.status:
            if not exchange.finished:
                _log.warning("answer_broken_off", code=error.code, error=error.message)
            return
        if error.outcome.http >= 500 and error.code != "internal":
            _log.warning("request_refused", code=error.code, error=error.message, path=exchange.scope["path"][:200], **_safe(error.context))
        try:
            await exchange.json(error.outcome.http, error_body(error), error_headers(error))
        except ApplianceError as second:  # the audit log cannot keep the record: nothing may leave but this refusal
            if not exchange.status:
                await exchange.json(second.outcome.http, error_body(second), error_headers(second))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._lifetime():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            _log.exception("gateway_lifetime_failed")
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def principal_of(scope: Scope) -> Principal:
    """The caller that the front has let in."""
    principal = scope[PRINCIPAL]
    if not isinstance(principal, Principal):
        raise TypeError
    return principal


def _request_id(given: bytes | None) -> str:
    """The caller's request id when it is a sane one, a new one otherwise."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return next_identifier()


def _endpoint_class(method: str, path: str) -> EndpointClass:
    if path in _SEARCHES or (path == "/api/knowledge" and method == "GET"):
        return "search"
    if _WORK.fullmatch(path):
        return "work"
    if path in _CHATS:
        return "chat"
    return "upload" if method == "POST" and path in _UPLOADS else "api"


def _safe(context: Mapping[str, object]) -> dict[str, str]:
    return {f"context_{key}": str(value)[:300] for key, value in context.items() if key not in {"headers", "param"}}
