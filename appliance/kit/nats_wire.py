"""A lean NATS connection for the hot path: frames in, frames out, requests with one or many replies, reconnects. Owns the TCP (TLS) connection.

Not here: JetStream (its callers build requests), retries (a request that was under way when the connection broke fails with ConnectionError: whether it
was carried out only its caller can find out). Management that is not hot (object store) uses ``nats-py``, whose client takes 20–50 µs per message.

Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol. Invariants:
1. Nothing is written while disconnected; ``request`` waits for a connection, ``send`` raises.
2. Every waiting reply ends: by its answer, its timeout (the caller's), or ConnectionError when the connection is lost.
3. Reconnecting never spins: the pause grows to ``_LONGEST_PAUSE_SECONDS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple, cast

from appliance.kit.errors import ApplianceError

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 2.0
_PING_SECONDS: Final = 1.5
_SILENT_PINGS: Final = 2
_WITH_HEADER: Final = ord("H")
_MESSAGE: Final = b"HM"  # HMSG, MSG: no other frame of the server begins so
_SILENCE_IS_DEATH: Final = "the server does not answer"


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where the servers of one cluster are and who we are there.

    Attributes:
        servers: (host, port) of each.
        tls: context with our certificate, None for plain loopback.
    """

    servers: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = None


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


Handler = Callable[[Message], None]
LostHandler = Callable[[], None]


class NatsWire:
    """One connection, kept up by a task of its own. Make it with :func:`open_wire`."""

    def __init__(self, address: NatsAddress, name: str) -> None:
        self._address = address
        self._name = name
        self._protocol: _Protocol | None = None
        self._prefix = f"_INBOX.{secrets.token_hex(8)}."
        self._numbers = count(1)
        self._waiting: dict[bytes, tuple[Handler, LostHandler]] = {}
        self._subscriptions: dict[bytes, tuple[str, Handler]] = {}
        self._connected = asyncio.Event()
        self.on_connected: list[Callable[[], None]] = []
        self.last_error = "not connected yet"
        self.info: dict[str, Any] = {}
        self.epoch = 0

    @property
    def connected(self) -> bool:
        """Whether frames can be sent now."""
        return self._connected.is_set()

    async def wait_connected(self, timeout_seconds: float) -> None:
        """Return when connected.

        Raises:
            ApplianceError: ``unavailable`` after the timeout.
        """
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_seconds)
        except TimeoutError as exc:
            raise ApplianceError(
                "unavailable", f"the event log's server cannot be reached: {self.last_error}", hint="is nats-server running? see logs/nats.log"
            ) from exc

    def send(self, frames: bytes) -> None:
        """Write encoded frames. Raises ConnectionError when there is no connection."""
        if self._protocol is None or not self._connected.is_set():
            raise ConnectionError(self.last_error)
        self._protocol.write(frames)

    def expect(self, handler: Handler, lost: LostHandler) -> str:
        """A new reply subject: ``handler`` gets every message on it, ``lost`` is called when the connection breaks. End it with :meth:`forget`."""
        token = str(next(self._numbers))
        self._waiting[token.encode()] = handler, lost
        return self._prefix + token

    def forget(self, reply: str) -> None:
        """No more replies are wanted; unknown ones are fine."""
        self._waiting.pop(reply[len(self._prefix) :].encode(), None)

    async def request(self, subject: str, payload: bytes, timeout_seconds: float) -> Message:
        """Ask and wait for one reply.

        Raises:
            ConnectionError, TimeoutError: whether it was carried out is unknown.
        """
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        async with self._replies(answer.set_result, answer) as reply, asyncio.timeout(timeout_seconds):
            await self._connected.wait()
            self.send(publish_frame(subject, payload, reply))
            return await answer

    async def request_many(self, subject: str, payload: bytes, timeout_seconds: float, is_last: Callable[[Message], bool]) -> Sequence[Message]:
        """Ask and collect replies up to the one that ``is_last`` (included). Raises as :meth:`request`."""
        messages: list[Message] = []
        end: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def take(message: Message) -> None:
            messages.append(message)
            if is_last(message) and not end.done():
                end.set_result(message)

        async with self._replies(take, end) as reply, asyncio.timeout(timeout_seconds):
            await self._connected.wait()
            self.send(publish_frame(subject, payload, reply))
            await end
        return messages

    @asynccontextmanager
    async def _replies(self, handler: Handler, future: asyncio.Future[Message]) -> AsyncIterator[str]:
        def lost() -> None:
            if not future.done():
                future.set_exception(ConnectionError(self.last_error))

        def take(message: Message) -> None:
            if not future.done():
                handler(message)

        reply = self.expect(take, lost)
        try:
            yield reply
        finally:
            self.forget(reply)
            future.cancel()

    def subscribe(self, subject: str, handler: Handler) -> str:
        """Hand every message on ``subject`` to ``handler``, also after reconnects; returns the id for :meth:`unsubscribe`."""
        sid = str(next(self._numbers))
        self._subscriptions[sid.encode()] = subject, handler
        if self.connected:
            self.send(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: str) -> None:
        """End a subscription; unknown ones are fine."""
        if self._subscriptions.pop(sid.encode(), None) and self.connected:
            self.send(f"UNSUB {sid}\r\n".encode())

    def take(self, sid: bytes, message: Message) -> None:
        """A message has come (called by the protocol)."""
        if sid == b"0":
            entry = self._waiting.get(message.subject[len(self._prefix) :])
            if entry is not None:
                entry[0](message)
        elif (subscription := self._subscriptions.get(sid)) is not None:
            subscription[1](message)

    async def keep_up(self) -> None:
        """Connect, and again whenever the connection is lost, until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        servers = list(self._address.servers)
        random.shuffle(servers)
        while True:
            for host, port in servers:
                try:
                    await self._serve(host, port)
                    pause = _FIRST_PAUSE_SECONDS
                except (OSError, TimeoutError, ValueError) as exc:
                    self.last_error = f"{host}:{port}: {exc or type(exc).__name__}"
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311  # spreads reconnects, nothing secret
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _serve(self, host: str, port: int) -> None:
        """One connection from its beginning to its end; raises when it could not begin."""
        protocol = await _connect(self, self._address, host, port, self._name)
        try:
            self.info, self._protocol, self.epoch = protocol.info, protocol, self.epoch + 1
            again = "".join(f"SUB {subject} {sid.decode()}\r\n" for sid, (subject, _) in self._subscriptions.items())
            protocol.write(f"SUB {self._prefix}* 0\r\n{again}".encode())
            self._connected.set()
            for call in self.on_connected:
                call()
            self.last_error = await protocol.ended()
        finally:
            self._connected.clear()
            self._protocol = None
            protocol.close()
            waiting, self._waiting = self._waiting, {}
            for _, lost in waiting.values():
                lost()


class _Protocol(asyncio.Protocol):
    """Parses what the server sends."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.owner: NatsWire | None = None
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
        take = self.owner.take if self.owner is not None else None
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


async def _connect(owner: NatsWire, address: NatsAddress, host: str, port: int, name: str) -> _Protocol:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_SECONDS):
        _, protocol = await loop.create_connection(_Protocol, host, port)
        try:
            await protocol.greeted
            if address.tls is None and protocol.info.get("tls_required"):
                raise ConnectionError("the server wants TLS and no certificates are set")  # before the password is sent in the clear
            if address.tls is not None:
                assert protocol.transport is not None
                protocol.transport = await loop.start_tls(protocol.transport, protocol, address.tls, server_hostname=host)
            options = {
                "verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1, "headers": True, "no_responders": True,
                "name": name, "user": address.user, "pass": address.password, "tls_required": address.tls is not None,
            }  # fmt: skip
            protocol.owner = owner
            protocol.write(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
            await protocol.ready
        except BaseException:
            protocol.close()
            raise
    return protocol


def publish_frame(subject: str, payload: bytes, reply: str = "") -> bytes:
    """A PUB frame without headers."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)


@asynccontextmanager
async def open_wire(address: NatsAddress, name: str) -> AsyncIterator[NatsWire]:
    """A connection that comes back by itself for the length of a block; it may not be up yet when the block begins."""
    wire = NatsWire(address, name)
    keeper = asyncio.create_task(wire.keep_up(), name=f"nats-wire-{name}")
    try:
        yield wire
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
