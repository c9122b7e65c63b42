"""Frames between the box and a function worker: a length of four bytes, then MessagePack of a batch of typed messages.

Everything that is said within one turn of an event loop goes out as one batch. Never pickle. Frames from a worker are hostile input: their size is
bounded before they are decoded, their shape is checked by msgspec, and they name only jobs by number. JSON travels as bytes, undecoded.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

_LENGTH: Final = struct.Struct(">I")
_FLUSH_BYTES: Final = 256 * 1024


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages; ``job`` is the number that the box gave a task on this worker."""


class Start(_Message, tag=1, frozen=True):
    """Run ``function`` for task ``task``; ``steps`` are finished already. Times in seconds."""

    job: int
    task: str
    function: str
    input: bytes
    metadata: bytes
    attempt: int
    steps: dict[str, bytes]


class Durable(_Message, tag=2, frozen=True):
    """The first ``count`` steps that the job sent are durable."""

    job: int
    count: int


class Answer(_Message, tag=3, frozen=True):
    """What came of call number ``call``: JSON, or why not."""

    job: int
    call: int
    body: bytes
    failed: bool = False


class Cancel(_Message, tag=4, frozen=True):
    """Stop the job."""

    job: int


class Hello(_Message, tag=10, frozen=True):
    """The worker is ready. ``functions``: (name, is async, timeout, input schema as JSON); ``problems``: modules that could not be loaded."""

    functions: tuple[tuple[str, bool, float | None, bytes], ...]
    problems: tuple[str, ...]
    sealed: str


class Steps(_Message, tag=11, frozen=True):
    """Finished steps, oldest first."""

    job: int
    steps: tuple[tuple[str, bytes], ...]


class Done(_Message, tag=12, frozen=True):
    """The function returned; ``steps`` are those that were not sent yet."""

    job: int
    result: bytes
    steps: tuple[tuple[str, bytes], ...]


class Failed(_Message, tag=13, frozen=True):
    """The function raised. ``kind``: ``failed``, ``refused``, ``later``, ``cancelled``; ``trace``: its traceback, cut; ``fatal``: the worker is no longer sound."""

    job: int
    kind: str
    code: str
    message: str
    trace: str
    steps: tuple[tuple[str, bytes], ...]
    fatal: bool = False


class Progress(_Message, tag=14, frozen=True):
    """How far the job is."""

    job: int
    fraction: float
    note: str


class Call(_Message, tag=15, frozen=True):
    """The job asks for ``what``: ``save``, ``restore``, ``effect``, ``finish``."""

    job: int
    call: int
    what: str
    body: bytes


ToWorker = Start | Durable | Answer | Cancel
FromWorker = Hello | Steps | Done | Failed | Progress | Call
WORKER_DECODER: Final[msgspec.msgpack.Decoder[list[ToWorker]]] = msgspec.msgpack.Decoder(list[ToWorker])
BOX_DECODER: Final[msgspec.msgpack.Decoder[list[FromWorker]]] = msgspec.msgpack.Decoder(list[FromWorker])


class FrameChannel(asyncio.Protocol):
    """One end of the socket.

    Args:
        decoder: of what the other end may say.
        most_bytes: a longer frame ends the connection.
        on_messages: called with each batch.
        on_lost: called once when the connection is over, with what broke it.
        before_flush: called before a batch goes out, to add what was held back.
    """

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[Any],
        most_bytes: int,
        on_messages: Callable[[Sequence[Any]], None],
        on_lost: Callable[[Exception | None], None],
        before_flush: Callable[[], None] | None = None,
    ) -> None:
        self._decode = decoder.decode
        self._most_bytes = most_bytes
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._before_flush = before_flush
        self._encode = msgspec.msgpack.Encoder().encode
        self._received = bytearray()
        self._outgoing: list[Any] = []
        self._outgoing_bytes = 0
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._transport = None
        self._on_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Of asyncio: hand over every batch that is complete."""
        size = len(data)
        if not self._received and size >= 4 and _LENGTH.unpack_from(data)[0] == size - 4 <= self._most_bytes:
            self._hand_over(memoryview(data)[4:])
            return
        self._received += data
        self._take_apart()

    def _take_apart(self) -> None:
        received, at = self._received, 0
        while len(received) - at >= 4:
            length = _LENGTH.unpack_from(received, at)[0]
            if length > self._most_bytes:
                self._break(f"a frame of {length} bytes")
                return
            end = at + 4 + length
            if len(received) < end:
                break
            self._hand_over(bytes(received[at + 4 : end]))
            at = end
        if at:
            del received[:at]

    def _hand_over(self, body: bytes | memoryview) -> None:
        try:
            messages = self._decode(body)
        except msgspec.MsgspecError as error:
            self._break(f"a frame that is none: {error}")
            return
        self._on_messages(messages)

    def _break(self, why: str) -> None:
        self._received.clear()
        if self._transport is not None:
            self._transport.abort()
        self._on_lost(ValueError(why))

    def send(self, message: Any, size_bytes: int = 0) -> None:
        """Say ``message`` with the next batch; ``size_bytes`` of its payload, if it may be large."""
        self._outgoing.append(message)
        self._outgoing_bytes += size_bytes
        if self._outgoing_bytes > _FLUSH_BYTES:
            self._write()
        elif not self._scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Flush at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what was said, now."""
        self._scheduled = False
        if self._before_flush is not None:
            self._before_flush()
        self._write()

    def _write(self) -> None:
        batch, self._outgoing, self._outgoing_bytes = self._outgoing, [], 0
        if batch and self._transport is not None:
            body = self._encode(batch)
            self._transport.write(_LENGTH.pack(len(body)) + body)

    @property
    def is_closed(self) -> bool:
        """Whether there is no connection (any more, or yet)."""
        return self._transport is None

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()
