"""The MCP server as an ASGI application for ``/mcp``. Owns: the bearer at the door, the methods, and that ``mcp`` is loaded on the first request only.

``build_mcp_app(...)`` returns an :class:`McpEdge`; the process that mounts it holds ``async with edge.lifespan():`` open and passes requests on.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.mcp.desk import Desk
from services.orchestrator.mcp.links import Buckets
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.settings import McpSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Serve = Callable[[Scope, Receive, Send], Awaitable[None]]
_MAX_BEARER_CHARACTERS: Final = 8192
_BEARER: Final = "appliance.mcp.bearer"
_HINT: Final = "send 'Authorization: Bearer <access token or sk-… key>'; make a key with: appliance keys create --role editor"
_log = get_logger(__name__)


class McpEdge:
    """Serves POST; one request, one answer (a stream of events while a call waits). No sessions: any replica takes any request."""

    def __init__(self, needs: McpDependencies, settings: McpSettings) -> None:
        self._needs = needs
        self._settings = settings
        self._denials = Buckets(time.monotonic)
        self._wanted = asyncio.Event()
        self._serve: asyncio.Future[_Serve] | None = None

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """While entered, requests are served; leaving it ends those in flight."""
        self._serve = asyncio.get_running_loop().create_future()
        host = asyncio.create_task(self._host(self._serve), name="mcp-server")
        try:
            yield
        finally:
            host.cancel()
            await asyncio.gather(host, return_exceptions=True)
            self._serve = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ApplianceError("invalid_request", "MCP speaks HTTP here", hint="POST to /mcp")
        try:
            if scope["method"] != "POST":
                raise ApplianceError("method_not_allowed", "MCP takes POST here; there are no sessions to open or to end", hint="POST to /mcp")
            bearer = await self._credentials(scope)
            await self._needs.authenticator.authenticate(bearer)
            serve = await self._ready()
        except ApplianceError as error:
            await _refuse(error, send)
            return
        await serve({**scope, _BEARER: bearer}, receive, send)

    async def _credentials(self, scope: Scope) -> str:
        """The bearer. A caller without one is on record (a flood of them is cut); one with a wrong one the authenticator records."""
        try:
            return _bearer(scope)
        except ApplianceError:
            address = str(scope["client"][0]) if scope.get("client") else "unknown"
            if self._denials.wait_seconds(address, self._settings.denials_recorded_per_minute) == 0:
                detail = {"address": address, "reason": "no_credentials"}
                await self._needs.audit.append(actor="anonymous", action="mcp.connect", resource="", outcome="deny", detail=detail)
            raise

    async def _ready(self) -> _Serve:
        if self._serve is None:
            raise ApplianceError("unavailable", "the MCP server is not running", hint="try again in a moment")
        self._wanted.set()
        return await asyncio.shield(self._serve)

    async def _host(self, ready: asyncio.Future[_Serve]) -> None:
        """One task holds the server's task group from the first request to the end of the process."""
        await self._wanted.wait()
        try:
            server = await asyncio.to_thread(importlib.import_module, "services.orchestrator.mcp.server")
            manager = server.McpServer(Desk(self._needs, self._settings), self._settings).session_manager()
            async with manager.run():
                ready.set_result(manager.handle_request)
                await asyncio.Event().wait()
        except Exception as error:
            _log.exception("mcp_server_failed")
            if not ready.done():
                ready.set_exception(ApplianceError("unavailable", f"the MCP server cannot start: {error}", hint="see the log of the box"))


def build_mcp_app(needs: McpDependencies, settings: McpSettings | None = None) -> McpEdge:
    """The application to mount at ``/mcp``, with its ``lifespan``."""
    return McpEdge(needs, settings or McpSettings.read())


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            token = token.strip()
            if scheme.lower() == b"bearer" and token and len(token) <= _MAX_BEARER_CHARACTERS and token.isascii():
                return str(token, "ascii")
            raise ApplianceError("unauthenticated", "the credentials cannot be read", hint=_HINT)
    raise ApplianceError("unauthenticated", "no credentials were sent", hint=_HINT)


async def _refuse(error: ApplianceError, send: Send) -> None:
    """An HTTP refusal whose body is a JSON-RPC error, as the transport asks for."""
    fields = {"code": error.code, "message": error.message, "hint": error.hint}
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": error.message, "data": fields}})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if error.code == "unauthenticated":
        headers.append((b"www-authenticate", b'Bearer realm="appliance"'))
    if error.code == "method_not_allowed":
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": error.outcome.http, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
