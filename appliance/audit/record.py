"""One audit record and the bytes it has on disk. Pure: no files, no clock, no keys.

Every line of the log is canonical JSON (compact, UTF-8, keys in the order below, ``detail`` keys sorted) and ends the chain so far::

    {"schema_version":1,"seq":7,"prev":"<64 hex>", <fields> ,"hash":"<64 hex>"}

``hash`` is SHA-256 of the line up to the comma before ``"hash"``, closed with ``}``; ``prev`` is the ``hash`` of the line before.
Two kinds of line: a *record* (fields ``time, trace_id, actor, action, resource, outcome, detail``; its ``seq`` is one more than
the record before) and a *seal* (fields ``kind:"seal", signature``; its ``seq`` is that of the last record it covers).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
Outcome = Literal["allow", "deny", "ok", "error"]
OUTCOMES: Final = frozenset({"allow", "deny", "ok", "error"})
Detail = Mapping[str, str | int | float | bool | list[str] | None]

MAX_TEXT_CHARACTERS: Final = 256
MAX_FIELDS_BYTES: Final = 4096
"""A record tells what happened to which thing; what the thing said is not its business."""

HASH_TAIL_BYTES: Final = len(b',"hash":""}\n') + 64
_FORBIDDEN_KEYS: Final = frozenset(
    {
        "password",
        "secret",
        "token",
        "access_token",
        "refresh_token",
        "api_key",
        "authorization",
        "text",
        "content",
        "quote",
    }
)
_SECRET: Final = re.compile(rb"\b(?:sk-|rt-|eyJ)[0-9A-Za-z._-]{16,}")
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded record, for people and exports."""

    schema_version: int
    seq: int
    prev: str
    time: str
    trace_id: str
    actor: str
    action: str
    resource: str
    outcome: str
    detail: dict[str, msgspec.Raw]
    hash: str


def encode_fields(*, time: str, trace_id: str, actor: str, action: str, resource: str, outcome: Outcome, detail: Detail | None) -> bytes:
    """Everything of a record that does not depend on its place in the chain, without the outer braces.

    Strings are cut at ``MAX_TEXT_CHARACTERS``; anything that looks like a credential is replaced by ``[redacted]``.

    Raises:
        ApplianceError: ``internal`` for an unknown outcome, a key that names a secret or a text, or a value that is too large:
            a mistake of the code that appends, found by its tests.
    """
    if outcome not in OUTCOMES:
        raise _misuse(f"unknown outcome {outcome!r}")
    body = b'"time":%b,"trace_id":%b,"actor":%b,"action":%b,"resource":%b,"outcome":%b,"detail":%b' % (
        _encode(time),
        _encode(trace_id[:MAX_TEXT_CHARACTERS]),
        _encode(actor[:MAX_TEXT_CHARACTERS]),
        _encode(action[:MAX_TEXT_CHARACTERS]),
        _encode(resource[:MAX_TEXT_CHARACTERS]),
        _encode(outcome),
        _encode(_bounded(detail)) if detail else b"{}",
    )
    if b"sk-" in body or b"rt-" in body or b"eyJ" in body:
        body = _SECRET.sub(b"[redacted]", body)
    if len(body) > MAX_FIELDS_BYTES:
        raise _misuse("the record is too large")
    return body


def record_line(seq: int, prev: bytes, fields: bytes) -> tuple[bytes, bytes]:
    """The line of a record (with newline) and its hash (64 hex bytes)."""
    return _closed(line_prefix(seq, prev) + fields)


def seal_line(seq: int, prev: bytes, signature: bytes) -> tuple[bytes, bytes]:
    """The line of a seal (with newline) and its hash; ``signature`` is lower-case hex of :func:`seal_statement` signed."""
    return _closed(line_prefix(seq, prev) + seal_fields(signature))


def line_prefix(seq: int, prev: bytes) -> bytes:
    """How the line must begin, given its place in the chain."""
    return b'{"schema_version":1,"seq":%d,"prev":"%b",' % (seq, prev)


def seal_fields(signature: bytes) -> bytes:
    """Fields of a seal."""
    return b'"kind":"seal","signature":"%b"' % signature


SEAL_MARK: Final = b'"kind":"seal",'


def seal_statement(seq: int, last_hash: bytes) -> bytes:
    """What the signature of a seal signs: the domain, the last record's number and its hash."""
    return b"appliance/audit/seal/v1\x00%d\x00%b" % (seq, last_hash)


def genesis(public_key_raw: bytes) -> bytes:
    """``prev`` of the first line (64 hex bytes): binds the chain to its key, so logs of two boxes cannot be mixed."""
    return hashlib.sha256(b"appliance/audit/genesis/v1\x00" + public_key_raw).hexdigest().encode()


def _closed(open_line: bytes) -> tuple[bytes, bytes]:
    digest = hashlib.sha256(open_line + b"}").hexdigest().encode()
    return b'%b,"hash":"%b"}\n' % (open_line, digest), digest


def _bounded(detail: Detail) -> dict[str, object]:
    bounded: dict[str, object] = {}
    for key, value in detail.items():
        if key.lower() in _FORBIDDEN_KEYS:
            raise _misuse(f"detail key {key!r} could carry a secret or a text")
        if isinstance(value, str):
            bounded[key] = value[:MAX_TEXT_CHARACTERS]
        elif value is None or isinstance(value, int | float):
            bounded[key] = value
        elif isinstance(value, list | tuple):
            bounded[key] = [str(item)[:MAX_TEXT_CHARACTERS] for item in value]
        else:
            raise _misuse(f"detail value of {key!r} is not a plain value")
    return bounded


def _misuse(message: str) -> ApplianceError:
    return ApplianceError("internal", f"bad audit record: {message}", hint="this is a defect; send the log to support")
