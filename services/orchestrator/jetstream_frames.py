"""How entries are written on the wire and what the server answers. Owns the bytes of a publish and an atomic batch; no state.

Headers: https://docs.nats.io/nats-concepts/jetstream/headers; an atomic batch is published message by message, the last one says ``Nats-Batch-Commit`` and
gets the one answer (ADR-50 of nats-architecture-and-design).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from services.orchestrator.ports import Entry

HEADER_BYTES: Final = 512  # at most, of what is written below, for limits
LARGEST_BATCH: Final = 1000  # of the server
ID_HEADER: Final = b"Nats-Msg-Id"

WRONG_SEQUENCE: Final = frozenset({10071, 10164})  # 10164: another append to the subject is being replicated
DUPLICATE: Final = frozenset({10201, 10158})  # in a batch; of one that is being replicated
FULL: Final = frozenset({10077, 10047, 10023, 10122})
TOO_LARGE: Final = frozenset({10054, 10097})
_EXPECTED: Final = re.compile(r"wrong last sequence: (\d+)")


class PubError(msgspec.Struct, frozen=True):
    """Why nothing was stored."""

    code: int = 0
    err_code: int = 0
    description: str = ""

    @property
    def last_sequence(self) -> int | None:
        """The true last sequence of the subject, where the server tells it."""
        found = _EXPECTED.match(self.description)
        return int(found[1]) if found else None


class PubAck(msgspec.Struct, frozen=True):
    """Answer to a publish or a batch: ``seq`` of its last message."""

    seq: int = 0
    count: int = 1
    duplicate: bool = False
    error: PubError | None = None


decode_ack: Final = msgspec.json.Decoder(PubAck).decode


def single_frame(entry: Entry, reply: str) -> bytes:
    """A publish of one entry."""
    header = f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {entry.expected}\r\nNats-Msg-Id: {entry.message_id}\r\n\r\n".encode()
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        entry.subject.encode(), reply.encode(), len(header), len(header) + len(entry.body), header, entry.body,
    )  # fmt: skip


def batch_frames(entries: Sequence[Entry], batch: str, reply: str) -> bytes:
    """An atomic batch of at least two entries with distinct subjects."""
    parts: list[bytes] = []
    last = len(entries)
    for number, entry in enumerate(entries, 1):
        body = entry.body
        end = "Nats-Batch-Commit: 1\r\n\r\n" if number == last else "\r\n"
        header = (
            f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
            f"Nats-Expected-Last-Subject-Sequence: {entry.expected}\r\nNats-Msg-Id: {entry.message_id}\r\n{end}"
        )
        size = len(header) if header.isascii() else len(header.encode())
        parts.append(f"HPUB {entry.subject} {reply if number == last else ''} {size} {size + len(body)}\r\n{header}".encode())
        parts.append(body)
        parts.append(b"\r\n")
    return b"".join(parts)
