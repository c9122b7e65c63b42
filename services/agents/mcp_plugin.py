"""An MCP server as a plugin: connected in the background, watched, connected again with growing pauses; its tools are there while it is.

Owns: the connection, what was listed, refusing what changed behind our back, results as text. Does not own: definitions (``mcp_definitions``), the child
process (``mcp_stdio``), rights and approval (``toolbox``).

Invariants:
1. A tool is what it was when it was first listed since the operator last said so (start, or a change of ``agents.toml``): one whose definition is another
   later is refused and not offered, whatever the server says; with ``pin`` the operator says what all of them must be.
2. The server gets the arguments and nothing else: no names of people, no keys, no answers to its own questions (sampling, elicitation, roots).
3. A server that is down, slow or mad costs its own tools and nothing else; after :data:`MOST_FAILURES` failures in a row it is left alone until the
   operator changes something.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.contracts.tools.v1.api import ToolContext
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.agents.agents_toml import ServerTable
from services.agents.arguments import ArgumentChecker
from services.agents.mcp_definitions import MOST_TOOLS, Definition, definitions, pin_of
from services.agents.plugin import Tool, ToolResult

_log = get_logger(__name__)
MOST_FAILURES: Final = 10
CONNECT_SECONDS: Final = 20.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 60.0
_FRESH_SECONDS: Final = 60.0
_MOST_PAGES: Final = 20
_AT_ONCE: Final = 8
_CONNECTION_CLOSED: Final = -32000


@dataclass(frozen=True, slots=True)
class Pauses:
    """Between attempts to connect, in seconds: ``first · 2ⁿ``, at most ``longest``; ``fresh``: how old a listing may be for a read-only call."""

    first: float = _FIRST_PAUSE_SECONDS
    longest: float = _LONGEST_PAUSE_SECONDS
    fresh: float = _FRESH_SECONDS


class McpPlugin:
    """Implements ``Plugin``. ``run`` keeps it connected.

    Args:
        server: its name in ``agents.toml``.
        table: what stands there.
        work: folder of a child process.
        pauses: for tests.
    """

    def __init__(self, server: str, table: ServerTable, work: Path, pauses: Pauses | None = None) -> None:
        self.name = f"mcp:{server}"
        self.table = table
        self._server = server
        self._work = work
        self._pauses = pauses or Pauses()
        self._checker = ArgumentChecker()
        self._first: dict[str, Definition] | None = None
        self._changed: set[str] = set()
        self._tools: tuple[Tool, ...] = ()
        self._client: Any = None
        self._lost = asyncio.Event()
        self._listed_at = 0.0
        self._listing = asyncio.Lock()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._state = "connecting"
        self._why = ""
        self._refused: list[str] = []
        self.settled = asyncio.Event()

    def tools(self) -> Sequence[Tool]:
        """See ``Plugin``: none while it is not connected."""
        return self._tools if self._client is not None and not self._lost.is_set() else ()

    def health(self) -> str:
        """See ``Plugin``."""
        if self._client is None:
            return f"degraded: {self._state}: {self._why}" if self._why else self._state
        problems = [*(f"{name} changed its definition" for name in sorted(self._changed)), *self._refused]
        return f"degraded: {'; '.join(problems)[:500]}" if problems else "ok"

    @property
    def pin(self) -> str:
        """Digest of what was first listed; "" before."""
        return pin_of(self._first) if self._first else ""

    async def run(self) -> None:
        """Keep it connected; returns when it is given up. Cancel to stop."""
        failures = 0
        while failures < MOST_FAILURES:
            began = time.monotonic()
            try:
                await self._session()
            except Exception as exc:  # a mad server raises anything, in groups
                self._why = self._why or _reason(exc)
            failures = 0 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
            self._state = "waiting to connect again" if failures < MOST_FAILURES else "given up"
            _log.warning("mcp_server_lost", server=self._server, why=self._why, failures=failures)
            self.settled.set()
            if failures < MOST_FAILURES:
                await asyncio.sleep(min(self._pauses.first * 2 ** max(0, failures - 1), self._pauses.longest))

    async def _session(self) -> None:
        """One connection, from start to loss."""
        self._lost.clear()
        self._state, self._why = "connecting", ""
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(CONNECT_SECONDS):
                    client = await stack.enter_async_context(self._connected())
                    await self._list(client)
                self._client = client
                self._state = "connected"
                self.settled.set()
                await self._lost.wait()
        finally:
            self._client = None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        mcp = await asyncio.to_thread(import_module, "mcp")  # 0.5 s and more: only boxes with MCP servers pay for it, and no stream waits for it
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(self._transport())
            yield await stack.enter_async_context(
                mcp.Client(
                    transport, read_timeout_seconds=max(CONNECT_SECONDS, self.table.timeout_seconds), cache=None, message_handler=self._on_message
                )
            )

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        """What ``mcp.Client`` takes."""
        table = self.table
        if table.url:
            from services.agents.mcp_http import http_transport

            async with http_transport(table.url, table.api_key_file) as transport:
                yield transport
            return
        from services.agents.mcp_stdio import ServerProcess, stdio_transport

        self._work.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = ServerProcess(
            table.command, self._work, table.env, table.memory_mb * 1024 * 1024, table.network, table.readable, table.writable, table.unconfined
        )  # fmt: skip
        yield stdio_transport(process, self._on_lost)

    async def _on_message(self, message: Any) -> None:
        """The server says that its list changed: look before the next call. Everything else is not for us."""
        if type(getattr(message, "root", message)).__name__ == "ToolListChangedNotification":
            self._listed_at = 0.0

    def _on_lost(self, why: str) -> None:
        self._why = why
        self._lost.set()

    async def _list(self, client: Any) -> None:
        """Ask what there is; keep what it first was, and refuse what is another now."""
        told: list[Any] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.session.list_tools(params=_page(cursor))
            told.extend(page.tools[: 4 * MOST_TOOLS] if not self.table.tools else [one for one in page.tools if one.name in self.table.tools])
            cursor = page.next_cursor
            if cursor is None or len(told) > 4 * MOST_TOOLS:
                break
        found, self._refused = await asyncio.to_thread(definitions, self._server, self.table, told, self._checker.check_schema)
        if self.table.pin and pin_of(found) != self.table.pin:
            self._tools, self._refused = (), ["its tools are not those of pin in agents.toml; see: appliance tools check"]
            self._first = found
            self._listed_at = time.monotonic()
            return
        if self._first is None:
            self._first = found
        self._changed = {name for name, one in found.items() if name not in self._first or self._first[name].digest != one.digest}
        kept = {tool.name: tool for tool in self._tools}
        self._tools = tuple(kept.get(name) or self._tool(one) for name, one in sorted(found.items()) if name not in self._changed)
        self._listed_at = time.monotonic()

    def _tool(self, one: Definition) -> Tool:
        table = self.table
        return Tool(
            one.name, one.description, one.parameters, partial(self._call, one.name), read_only=one.read_only, roles=frozenset(table.roles),
            timeout_seconds=table.timeout_seconds, max_result_bytes=table.max_result_bytes, cache_seconds=table.cache_seconds, per_person=True,
        )  # fmt: skip

    async def _call(self, name: str, arguments: Mapping[str, Any], _context: ToolContext) -> ToolResult:
        client, definition = self._client, (self._first or {}).get(name)
        if client is None or definition is None:
            raise ApplianceError("tool_failed", f"{self._server} is not connected", hint="try again later, or do without")
        async with self._slots:
            await self._look_again(client, definition)
            try:
                result = await client.call_tool(definition.remote, dict(arguments), read_timeout_seconds=self.table.timeout_seconds)
            except Exception as exc:
                raise self._failure(exc) from exc
        text = _text(result)
        if result.is_error:
            raise ApplianceError("tool_failed", f"{name} says: {text[:1000]}", hint="correct the arguments, or do without")
        return ToolResult(text)

    async def _look_again(self, client: Any, definition: Definition) -> None:
        """Is the tool still what it was. Asked before every writing call, and before a read-only one when the listing is old."""
        if definition.read_only and time.monotonic() - self._listed_at < self._pauses.fresh:
            return
        async with self._listing:
            try:
                await self._list(client)
            except Exception as exc:
                raise self._failure(exc) from exc
        if not any(tool.name == definition.name for tool in self._tools):
            hint = "tell the operator: appliance tools check"
            raise ApplianceError("tool_failed", f"{definition.name} is not what it was when it was offered", hint=hint)

    def _failure(self, exc: Exception) -> ApplianceError:
        """An answer that is an error is the tool's; anything else means that the connection is gone."""
        import mcp

        if isinstance(exc, mcp.MCPError) and not self._lost.is_set() and not _is_of_transport(exc):
            return ApplianceError("tool_failed", f"{self._server} refused the call: {str(exc)[:500]}", hint="correct the arguments, or do without")
        self._on_lost(self._why or _reason(exc))
        return ApplianceError("tool_failed", f"{self._server} is gone", hint="try again later, or do without")


def _page(cursor: str | None) -> Any:
    import mcp_types

    return mcp_types.PaginatedRequestParams(cursor=cursor)


def _is_of_transport(exc: Any) -> bool:
    """``CONNECTION_CLOSED`` of the package; a request that took too long is no loss."""
    return getattr(getattr(exc, "error", exc), "code", 0) == _CONNECTION_CLOSED


def _text(result: Any) -> str:
    """Text parts, else the structured content; what is no text is counted only."""
    parts = []
    for part in result.content:
        text = getattr(part, "text", None)
        parts.append(text if isinstance(text, str) else f"[{part.type}: left out]")
    if not parts and result.structured_content is not None:
        return msgspec.json.encode(result.structured_content).decode()
    return "\n".join(parts)


def _reason(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {str(exc)[:200]}" if str(exc) else type(exc).__name__
