"""An MCP server over streamable HTTP, behind the egress guard: one destination, no proxy, no redirect elsewhere, answers of bounded size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from appliance.kit.egress import GUARD, Destination
from appliance.kit.errors import ApplianceError

_MOST_BYTES: Final = 8 * 1024 * 1024
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 300.0


@asynccontextmanager
async def http_transport(url: str, api_key_file: str) -> AsyncIterator[Any]:
    """A transport for ``mcp.Client``; the destination may be reached while it is open.

    Raises:
        ApplianceError: ``settings_invalid`` when the key file cannot be read.
    """
    headers = {"authorization": f"Bearer {_key(api_key_file)}"} if api_key_file else {}
    permit = GUARD.permit([Destination.of_url(url)])
    try:
        timeout = httpx2.Timeout(_CONNECT_SECONDS, read=_READ_SECONDS)
        async with httpx2.AsyncClient(
            headers=headers, timeout=timeout, trust_env=False, transport=_Bounded(httpx2.AsyncHTTPTransport(trust_env=False))
        ) as client:
            yield streamable_http_client(url, http_client=client, max_sse_event_size=_MOST_BYTES)
    finally:
        permit.revoke()


class _Bounded(httpx2.AsyncBaseTransport):
    """Ends a JSON answer that is too large; events of a stream are bounded by the package."""

    def __init__(self, inner: httpx2.AsyncHTTPTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Counted(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for chunk in self._inner:
            total += len(chunk)
            if total > _MOST_BYTES:
                raise httpx2.ReadError(f"an answer of more than {_MOST_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _key(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii").strip().split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as exc:
        raise ApplianceError("settings_invalid", f"the key file {file} cannot be read", hint="check the path and its permissions") from exc
