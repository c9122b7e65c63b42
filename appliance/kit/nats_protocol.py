"""The NATS protocol as bytes: parses what a server sends, writes frames. Owns one connection's parsing and liveness; who connects is ``nats_wire``.

Reference: https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

_PING_SECONDS: Final = 1.5
_SILENT_PINGS: Final = 2
_WITH_HEADER: Final = ord("H")
_MESSAGE: Final = b"HM"  # HMSG, MSG: no other frame of the server begins so
_SILENCE_IS_DEATH: Final = "the server does not answer"


class Message(NamedTuple):
    """A message as it came: all bytes; ``header`` is the raw block (``NATS/1.0 …``), empty when there is none."""

    subject: bytes
    reply: bytes
    header: bytes
    payload: bytes

    @property
    def status(self) -> int:
        """Status of the header line, 0 when it has none (503 = nobody listens on the subject of the request)."""
        line = self.header[8:12].strip()
        return int(line) if line.isdigit() else 0

    def header_value(self, name: bytes) -> bytes:
        """Value of the first header ``name``, empty when absent."""
        _, found, rest = self.header.partition(b"\r\n%b:" % name)
        return rest[: rest.index(b"\r\n")].strip() if found else b""


class NatsProtocol(asyncio.Protocol):
    """One connection.

    Attributes:
        take: gets the subscription's id and the message, for each message.
        info: what the server said of itself.
        greeted, ready: done when it said so, and when it has let us in.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.take: Callable[[bytes, Message], None] | None = None
        self.info: dict[str, Any] = {}
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._end: asyncio.Future[str] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = 0
        self._unanswered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(str(exc or "the server closed the connection"))

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def ended(self) -> str:
        """Ping while it lives; why it ended."""
        while True:
            done, _ = await asyncio.wait({self._end}, timeout=_PING_SECONDS)
            if done:
                return self._end.result()
            if self._unanswered >= _SILENT_PINGS:
                return _SILENCE_IS_DEATH
            self._unanswered += 1
            self.write(b"PING\r\n")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        self._unanswered = 0
        if len(buffer) < self._needed:
            return
        try:
            used = self._parse(bytes(buffer))
        except (ValueError, IndexError) as exc:
            self._finish(f"not a NATS server: {exc}")
            self.close()
            return
        del buffer[:used]

    def _parse(self, data: bytes) -> int:
        """Handle every whole frame; how many bytes they were."""
        position = 0
        self._needed = 0
        find = data.find
        take = self.take
        while (end := find(b"\r\n", position)) >= 0:
            first = data[position]
            if first in _MESSAGE:
                fields = data[position:end].split(b" ")
                body = end + 2
                close = body + int(fields[-1])
                if len(data) < close + 2:
                    self._needed = close + 2 - position
                    return position
                if first == _WITH_HEADER:
                    split = body + int(fields[-2])
                    reply = fields[3] if len(fields) == 6 else b""
                    message = Message(fields[1], reply, data[body:split], data[split:close])
                else:
                    message = Message(fields[1], fields[3] if len(fields) == 5 else b"", b"", data[body:close])
                if take is not None:
                    take(fields[2], message)
                position = close + 2
                continue
            self._control(data[position:end])
            position = end + 2
        return position

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self.write(b"PONG\r\n")
        elif line == b"PONG":
            if not self.ready.done():
                self.ready.set_result(None)
        elif line.startswith(b"INFO "):
            self.info |= json.loads(line[5:])
            if not self.greeted.done():
                self.greeted.set_result(None)
        elif line.startswith(b"-ERR"):
            self._finish(line[5:].decode(errors="replace").strip("'"))

    def _finish(self, why: str) -> None:
        for future in (self.greeted, self.ready):
            if not future.done():
                future.set_exception(ConnectionError(why))
                future.exception()  # seen: nobody may be waiting for it
        if not self._end.done():
            self._end.set_result(why)


def publish_frame(subject: str, payload: bytes, reply: str = "") -> bytes:
    """A PUB frame without headers."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)
