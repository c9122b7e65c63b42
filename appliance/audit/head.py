"""The head: one signed line in a slot of fixed size that says how far the log has got, so that a shortened log is found.

The statement has its own signature domain: a seal from the log can never pass for a head. The slot is one disk sector,
rewritten in place after each batch. The head never runs ahead of what is durable in the log; after a crash it may lag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.audit.signing import is_signed

NAME: Final = "head"
SLOT_BYTES: Final = 512
_DOMAIN: Final = b"appliance/audit/head/v1\x00"


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends.

    Attributes:
        seq: number of the last record; 0 for an empty log.
        hash: ``hash`` of the last line (64 hex digits), or the genesis.
        segment: first record number of the segment that holds the end (names the file).
        offset: bytes of that segment that belong to the log.
    """

    seq: int
    hash: str
    segment: int
    offset: int


class _Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    seq: int
    hash: str
    segment: int
    offset: int
    signature: str


def statement(head: Head) -> bytes:
    """What is signed."""
    return _DOMAIN + b"%d\x00%b\x00%d\x00%d" % (head.seq, head.hash.encode(), head.segment, head.offset)


def encode(head: Head, key: Ed25519PrivateKey) -> bytes:
    """The whole slot, ``SLOT_BYTES`` long."""
    return _slot(head, key.sign(statement(head)).hex())


def decode(slot: bytes, key: Ed25519PublicKey) -> Head | None:
    """The head in ``slot``, or None when any byte of it is not as :func:`encode` wrote it."""
    try:
        found = msgspec.json.decode(slot.rstrip(), type=_Slot)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    head = Head(found.seq, found.hash, found.segment, found.offset)
    if _slot(head, found.signature) != slot or not is_signed(key, found.signature.encode(), statement(head)):
        return None
    return head


def _slot(head: Head, signature: str) -> bytes:
    line = msgspec.json.encode(_Slot(1, head.seq, head.hash, head.segment, head.offset, signature))
    return line.ljust(SLOT_BYTES - 1) + b"\n"
