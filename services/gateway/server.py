"""The HTTP server: uvicorn with uvloop and httptools, one process (docs/adr/0007 says why)."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from services.gateway.asgi import AsgiApp
from services.gateway.http_protocol import Deadlines, PatientProtocol, check_all

_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_SHUTDOWN_SECONDS = 5
_ALLOCATIONS_BETWEEN_COLLECTIONS = 5_000
_TICKS_BETWEEN_SWEEPS = 10
_DEADLINES = Deadlines()
MIB = 1024 * 1024


class GatewayServer(uvicorn.Server):
    """``await server.serve(sockets=[listening])`` serves until ``should_exit``; signals are left to the process."""

    def __init__(self, config: uvicorn.Config, deadlines: Deadlines) -> None:
        super().__init__(config)
        self._deadlines = deadlines

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until ``should_exit``."""
        settle_memory()
        await super().serve(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn calls this ten times a second; once a second slow clients are looked for."""
        if counter % _TICKS_BETWEEN_SWEEPS == 0:
            check_all(self.server_state.connections, asyncio.get_running_loop().time(), self._deadlines)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process that embeds the gateway handles signals."""
        yield


def make_server(app: AsgiApp, *, websocket_message_bytes: int = MIB, ping_seconds: float = 20.0, deadlines: Deadlines = _DEADLINES) -> GatewayServer:
    """A server for ``app``; call ``serve`` with sockets of :func:`listen`."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="websockets-sansio",
        loop="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        backlog=_BACKLOG,
        ws_max_size=websocket_message_bytes,
        ws_ping_interval=ping_seconds,
        ws_ping_timeout=ping_seconds,
        ws_per_message_deflate=False,
    )
    return GatewayServer(config, deadlines)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def settle_memory() -> None:
    """Tell the garbage collector that what is loaded by now stays.

    Without it every full collection walks all modules and models: pauses of 100 ms and more in the middle of answers, half the throughput.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, 20, 20)
