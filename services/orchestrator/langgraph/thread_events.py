"""What a LangGraph thread's subject holds: one entry is an :class:`Envelope` with the events that were stored together. Owns the encoding (msgpack).

Values stay as LangGraph's serialiser made them; nothing here looks into them, so an encrypting serialiser encrypts the log too.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.subjects import subject_token

GRAPHS: Final = "graph"
SCHEMA_VERSION: Final = 1
Version = str | int | float
_READABLE: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


class Blob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A serialised value: ``kind`` as the serialiser says it, then its bytes, or the ``key`` of the object that has them."""

    kind: str
    data: bytes = b""
    key: str = ""


class CheckpointPut(msgspec.Struct, frozen=True, array_like=True, tag="checkpoint"):
    """A checkpoint.

    Attributes:
        checkpoint: without values and versions.
        values: of the channels that changed with it.
        run: the run that made it.
        deltas: channels that are rebuilt from writes of its ancestors.
    """

    ns: str
    id: str
    parent: str
    checkpoint: Blob
    metadata: Blob
    versions: dict[str, Version]
    values: dict[str, tuple[Version, Blob]]
    run: str = ""
    deltas: tuple[str, ...] = ()


class Write(msgspec.Struct, frozen=True, array_like=True):
    """What a node wrote to one channel; ``index`` as in ``put_writes``, negative for the special channels."""

    index: int
    channel: str
    value: Blob


class WritesPut(msgspec.Struct, frozen=True, array_like=True, tag="writes"):
    """Writes of a task that ran on a checkpoint."""

    ns: str
    id: str
    task: str
    path: str
    writes: tuple[Write, ...]


class Packed(msgspec.Struct, frozen=True, array_like=True, tag="packed"):
    """Events that were packed together (``pack``); ``replaces``: they are all that is left of the thread."""

    contents: Blob
    replaces: bool


ThreadEvent = CheckpointPut | WritesPut
Event = ThreadEvent | Packed


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the log."""

    v: int
    thread: str
    events: tuple[Event, ...]


class _Head(msgspec.Struct, frozen=True, array_like=True):
    v: int
    thread: str


_envelopes: Final = msgspec.msgpack.Decoder(Envelope)
_heads: Final = msgspec.msgpack.Decoder(_Head)
_packs: Final = msgspec.msgpack.Decoder(tuple[ThreadEvent, ...])


def encode(thread: str, events: tuple[Event, ...]) -> bytes:
    """The body of an entry."""
    return msgspec.msgpack.encode(Envelope(SCHEMA_VERSION, thread, events))


def decode(body: bytes) -> Envelope:
    """The reverse. Raises ApplianceError ``event_unknown`` for what a newer release wrote."""
    thread_of(body)
    return _envelopes.decode(body)


def thread_of(body: bytes) -> str:
    """Whose entry it is. Raises ApplianceError ``event_unknown`` for what a newer release wrote."""
    head = _heads.decode(body)
    if head.v > SCHEMA_VERSION:
        raise ApplianceError("event_unknown", f"a newer release wrote to the thread {head.thread}", hint="install that release here")
    return head.thread


def pack(events: tuple[ThreadEvent, ...]) -> bytes:
    """Events as one value, for :class:`Packed`."""
    return msgspec.msgpack.encode(events)


def unpack(data: bytes) -> tuple[ThreadEvent, ...]:
    """The reverse."""
    return _packs.decode(data)


def blobs_of(event: ThreadEvent) -> list[Blob]:
    """Every value in an event."""
    if isinstance(event, WritesPut):
        return [write.value for write in event.writes]
    return [event.checkpoint, event.metadata, *(blob for _, blob in event.values.values())]


def with_blobs(event: ThreadEvent, blobs: list[Blob]) -> ThreadEvent:
    """The event with other values, in the order of :func:`blobs_of`."""
    if isinstance(event, WritesPut):
        writes = tuple(msgspec.structs.replace(write, value=blob) for write, blob in zip(event.writes, blobs, strict=True))
        return msgspec.structs.replace(event, writes=writes)
    values = {name: (version, blob) for (name, (version, _)), blob in zip(event.values.items(), blobs[2:], strict=True)}
    return msgspec.structs.replace(event, checkpoint=blobs[0], metadata=blobs[1], values=values)


def thread_token(thread: str) -> str:
    """A thread's id as a token of a subject: itself where it can be one, else its digest (the id stands in every entry)."""
    return thread if _READABLE.fullmatch(thread) else "~" + hashlib.sha256(thread.encode()).hexdigest()[:40]


def thread_subject(space: str, thread: str) -> str:
    """Where a thread's entries are."""
    return f"{GRAPHS}.{subject_token(space)}.{thread_token(thread)}"
