"""Wires between processes that a test can cut, slow down and break: TCP relays on loopback, no rights needed, no namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import socket

_CHUNK = 65_536
_MOST_QUEUED = 64


class Relay:
    """Forwards one loopback port to another.

    Attributes:
        is_cut: connections are closed and refused.
        delay_seconds: every piece waits so long, in order.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.is_cut = False
        self.delay_seconds = 0.0
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=_CHUNK)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.drop()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Nothing passes until :meth:`mend`."""
        self.is_cut = True
        self.drop()

    def mend(self) -> None:
        self.is_cut = False

    def drop(self) -> None:
        """End what is open now: whatever was under way is lost, replies too; new connections are taken."""
        for pump in self._pumps:
            pump.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            if self.is_cut:
                return
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._to_port, limit=_CHUNK)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far))
                group.create_task(self._pump(far_reader, writer))
        except* (OSError, asyncio.CancelledError, _EndedError):
            pass
        finally:
            self._pumps.discard(task)
            for one in (writer, far):
                if one is not None:
                    one.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_QUEUED)
        loop = asyncio.get_running_loop()

        async def send() -> None:
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                target.write(data)
                await target.drain()

        sender = asyncio.create_task(send())
        try:
            while data := await source.read(_CHUNK):
                if sender.done():
                    break
                await queue.put((loop.time() + self.delay_seconds, data))
            raise _EndedError
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender


class _EndedError(Exception):
    """One side has closed."""
