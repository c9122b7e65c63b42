"""A lean NATS connection for the hot path: frames in, frames out, requests with one or many replies, reconnects. Owns the TCP (TLS) connection.

Not here: JetStream (its callers build requests), retries (a request that was under way when the connection broke fails with ConnectionError: whether it
was carried out only its caller can find out). Why not ``nats-py``: 20–50 µs a message (docs/adr/0021).

Invariants:
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
from pathlib import Path
from typing import Any, Final

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_protocol import Message, NatsProtocol, publish_frame

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where the servers of one cluster are and who we are there.

    Attributes:
        servers: (host, port) of each.
        tls: context with our certificate, None for plain loopback.
        owner: uid that must have opened the listening socket on loopback, None asks nobody. While a server of ours is down, any user of the machine
            could take its port, learn the password and acknowledge what nobody stores.
    """

    servers: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    owner: int | None = None


Handler = Callable[[Message], None]
LostHandler = Callable[[], None]


class NatsWire:
    """One connection, kept up by a task of its own. Make it with :func:`open_wire`."""

    def __init__(self, address: NatsAddress, name: str) -> None:
        self._address = address
        self._name = name
        self._protocol: NatsProtocol | None = None
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


async def _connect(owner: NatsWire, address: NatsAddress, host: str, port: int, name: str) -> NatsProtocol:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_SECONDS):
        _, protocol = await loop.create_connection(NatsProtocol, host, port)
        try:
            if address.owner is not None and (found := listener_owner(port)) != address.owner:
                raise ConnectionError(f"the port belongs to user {found}, not to the server of this box")
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
            protocol.take = owner.take
            protocol.write(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
            await protocol.ready
        except BaseException:
            protocol.close()
            raise
    return protocol


def listener_owner(port: int) -> int | None:
    """Uid of whoever listens on 127.0.0.1:``port``, None when nobody does (``/proc/net/tcp``: address, state 0A = listening, uid)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[1] in {f"0100007F:{port:04X}", f"00000000:{port:04X}"}:
            return int(fields[7])
    return None


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
