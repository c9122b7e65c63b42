"""An ordered stream of messages pushed by the server, without gaps, through reconnects of the wire. Owns one ephemeral consumer and its flow control.

A feed ends with :class:`FeedInterruptedError` at the first doubt (reconnect, a number missing, no heartbeat): its reader opens another behind what it
has. What is held in memory is bounded by the server's flow control: it goes on only when what it sent was taken.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from appliance.kit.nats_protocol import Message
from services.orchestrator.jetstream_connection import JetStreamConnection
from services.orchestrator.ports import Recorded

_HEARTBEAT_SECONDS: Final = 2
_SILENT_SECONDS: Final = 3.5 * _HEARTBEAT_SECONDS
_INACTIVE_SECONDS: Final = 30
_NANOSECONDS: Final = 1_000_000_000
_STATUS_LINE: Final = b"NATS/1.0 1"  # flow control and heartbeats
_ID_HEADER: Final = b"\r\nNats-Msg-Id: "
_MOST_AT_ONCE: Final = 512
_SHORT_ACK_TOKENS: Final = (
    9  # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>; newer ones have two more in front
)


class FeedInterruptedError(Exception):
    """Open another feed behind what was received."""


class Feed:
    """Receives for one consumer. Make it with :func:`open_feed`."""

    def __init__(self, connection: JetStreamConnection, stream: str) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._stream = stream
        self._name = f"feed-{secrets.token_hex(6)}"
        self._received: list[Recorded | Message] = []
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._interruption: str | None = None
        self._expected = 1
        self._pending = 0
        self._heard = 0.0
        self.epoch = connection.wire.epoch

    async def create(self, config: Mapping[str, object]) -> str:
        """Make the consumer; the id of its subscription. Raises ApiError, ApplianceError ``unavailable``."""
        subject = f"_FEED.{secrets.token_hex(8)}"
        sid = self._wire.subscribe(subject, self._take)
        whole: dict[str, Any] = {
            "name": self._name, "deliver_subject": subject, "ack_policy": "none", "max_deliver": 1, "replay_policy": "instant", "flow_control": True,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _NANOSECONDS, "inactive_threshold": _INACTIVE_SECONDS * _NANOSECONDS, "mem_storage": True,
            "num_replicas": 1, **config,
        }  # fmt: skip
        self._heard = self._loop.time()
        try:
            answer = await self._connection.api(
                f"CONSUMER.CREATE.{self._stream}.{self._name}", {"stream_name": self._stream, "config": whole, "action": "create"}
            )
        except BaseException:
            self._wire.unsubscribe(sid)
            raise
        if not self._received:  # otherwise its messages tell
            self._pending = int(answer.get("num_pending", 0)) + int(answer.get("delivered", {}).get("consumer_seq", 0))
        return sid

    async def batches(self) -> AsyncIterator[Sequence[Recorded]]:
        """Everything, in order; an empty batch whenever the end is reached for now. Raises FeedInterruptedError."""
        is_told = False
        while True:
            if not is_told and not self._pending and not any(isinstance(item, Recorded) for item in self._received):
                is_told = True
                yield []
            await self._wait()
            received, self._received = self._received, []
            batch: list[Recorded] = []
            for item in received:
                if isinstance(item, Recorded):
                    is_told = False
                    batch.append(item)
                    if len(batch) >= _MOST_AT_ONCE:
                        yield batch
                        batch = []
                else:
                    self._go_on(item.reply)
            if batch:
                yield batch

    async def _wait(self) -> None:
        """Return when something was received. A bare future: ``wait_for`` would make a task for each batch."""
        while not self._received:
            if self._interruption is not None or self._wire.epoch != self.epoch:
                raise FeedInterruptedError(self._interruption or "reconnected")
            if self._loop.time() - self._heard > _SILENT_SECONDS:
                raise FeedInterruptedError("no heartbeat")
            self._waiter = self._loop.create_future()
            pulse = self._loop.call_later(_HEARTBEAT_SECONDS, self._wake)
            try:
                await self._waiter
            finally:
                pulse.cancel()
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def reconnected(self) -> None:
        """The wire has another connection."""
        self._interrupt("reconnected")

    def _interrupt(self, why: str) -> None:
        self._interruption = self._interruption or why
        self._wake()

    def _take(self, message: Message) -> None:
        self._heard = self._loop.time()
        header = message.header
        if header.startswith(_STATUS_LINE):
            self._control(message)
            return
        if self._interruption is not None:
            return
        tokens = message.reply.split(b".")
        at = 5 if len(tokens) == _SHORT_ACK_TOKENS else 7
        if int(tokens[at + 1]) != self._expected:
            self._interrupt(f"message {self._expected} is missing")
            return
        self._expected += 1
        self._pending = int(tokens[at + 3])
        found = header.find(_ID_HEADER) + len(_ID_HEADER)
        message_id = header[found : header.find(b"\r\n", found)].decode() if found >= len(_ID_HEADER) else ""
        self._received.append(Recorded(message.subject.decode(), int(tokens[at]), message.payload, message_id))
        self._wake()

    def _control(self, message: Message) -> None:
        if message.reply:  # a flow control request: answered when what was sent before it was taken
            self._received.append(message)
            self._wake()
        elif (stalled := message.header_value(b"Nats-Consumer-Stalled")) and not self._received:
            self._go_on(stalled)
        elif int(message.header_value(b"Nats-Last-Consumer") or 0) >= self._expected:
            self._interrupt("the newest messages are missing")

    def _go_on(self, reply: bytes) -> None:
        if self._wire.connected:
            self._wire.send(b"PUB %b 0\r\n\r\n" % reply)

    async def delete(self) -> None:
        """Nobody reads it any more; the server forgets it by itself when this cannot be said."""
        if self._wire.connected:
            name = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}"
            self._wire.send(f"PUB {name} 0\r\n\r\n".encode())


@asynccontextmanager
async def open_feed(connection: JetStreamConnection, stream: str, config: Mapping[str, object]) -> AsyncIterator[Feed]:
    """A feed for the length of a block; ``config`` says where it begins."""
    feed = Feed(connection, stream)
    sid = await feed.create(config)
    connection.wire.on_connected.append(feed.reconnected)
    try:
        yield feed
    finally:
        connection.wire.on_connected.remove(feed.reconnected)
        connection.wire.unsubscribe(sid)
        await feed.delete()
