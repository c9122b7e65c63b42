"""The signed index of a backup: which files, how long, with which digest and mode. Owns its form, its limits and whether it may be believed.

Invariants:
1. The index is one DSSE envelope in its one spelling, signed (Ed25519) with the audit key of the box; nothing in it is used before that was checked.
2. Paths are relative, without ``.`` and ``..``, distinct, and none is a folder of another: unpacking them into an empty folder stays in it.
3. At most :data:`MAX_FILES` files and :data:`MAX_INDEX_BYTES`. It is the only thing whose memory grows: about 1.5 KiB for each file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.audit.signing import raw
from appliance.bundle.format.dsse import Envelope, Signature, read_envelope
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 2
INDEX: Final = "backup.dsse.json"
PAYLOAD_TYPE: Final = "application/vnd.appliance.backup+json"
MAX_FILES: Final = 2_000_000
MAX_INDEX_BYTES: Final = 512 * 2**20
MIN_PART_BYTES: Final = 2**20
MAX_PART_BYTES: Final = 4 * 2**30  # a ustar header holds sizes below 8 GiB
_MAX_PATH_BYTES: Final = 2048
_MAX_NAME_BYTES: Final = 255
_MAX_SIGNATURES: Final = 8


class SavedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the home: path in it, length in bytes, sha256 (hex), permission bits."""

    path: str
    size: int
    sha256: str
    mode: int


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup says of itself, for people."""

    made_at: str
    audit_segments: str
    audit_head_seen: str


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a backup, in the order of its members; a file longer than ``part_bytes`` takes several of them."""

    schema_version: int
    part_bytes: int
    facts: Facts
    files: tuple[SavedFile, ...]


class SignedIndex(msgspec.Struct, frozen=True):
    """An index that was read, and the envelope it came in; nothing is proven until :meth:`check` was called."""

    index: Index
    envelope: Envelope

    def check(self, public: Ed25519PublicKey) -> Index:
        """The index, when ``public`` signed it. Raises ``bundle_unsigned``."""
        key = raw(public)
        if not self.envelope.signers({hashlib.sha256(key).hexdigest(): key}):
            raise refused("bundle_unsigned", "the backup is not signed with that key")
        return self.index


def sign_index(index: Index, key: Ed25519PrivateKey) -> bytes:
    """The content of the last member. Raises ``home_invalid`` for more than a backup can hold."""
    payload = msgspec.json.encode(index)
    keyid = hashlib.sha256(raw(key.public_key())).hexdigest()
    body = _encoded(Envelope(PAYLOAD_TYPE, payload, (Signature(keyid, key.sign(Envelope(PAYLOAD_TYPE, payload).signed_bytes)),)))
    if len(body) > MAX_INDEX_BYTES or len(index.files) > MAX_FILES:
        hint = "leave the model snapshots out, or delete what the box does not need"
        raise ApplianceError("home_invalid", f"the home has {len(index.files)} files; a backup holds at most {MAX_FILES}", hint=hint)
    return body


def read_index(data: bytes) -> SignedIndex:
    """Read what :func:`sign_index` wrote.

    Raises:
        ApplianceError: ``bundle_invalid``.
    """
    try:
        if data.count(b"{") > 1 + _MAX_SIGNATURES or data.count(b"[") > 1:  # a table costs far more memory than its two bytes
            raise ValueError("is no envelope")
        envelope = read_envelope(msgspec.json.decode(data), INDEX, payload_type=PAYLOAD_TYPE)
        if _encoded(envelope) != data:
            raise ValueError("is not in the one form that it may have")
        index = msgspec.json.decode(envelope.payload, type=Index)
        _check(index)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise refused("bundle_invalid", f"{INDEX}: {exc}") from exc
    return SignedIndex(index, envelope)


def check_home_path(path: str) -> str:
    """Return ``path`` when unpacking it stays in the folder and any Linux file system takes it; raise ValueError saying why not."""
    spelled = path.encode()  # a UnicodeEncodeError is a ValueError
    parts = path.split("/")
    if (
        not 0 < len(spelled) <= _MAX_PATH_BYTES
        or "\0" in path
        or any(part in {"", ".", ".."} or len(part.encode()) > _MAX_NAME_BYTES for part in parts)
    ):
        raise ValueError(f"unsafe path {path[:120]!r}")
    return path


def refused(code: str, message: str) -> ApplianceError:
    """The refusal of a backup."""
    return ApplianceError(code, message, hint="use another backup; copy this one again from its medium first")


def _encoded(envelope: Envelope) -> bytes:
    return msgspec.json.encode(envelope.document())


def _check(index: Index) -> None:
    if index.schema_version != SCHEMA_VERSION:
        raise ValueError(f"unknown schema_version {index.schema_version}")
    if not MIN_PART_BYTES <= index.part_bytes <= MAX_PART_BYTES or len(index.files) > MAX_FILES:
        raise ValueError(f"parts have {MIN_PART_BYTES} to {MAX_PART_BYTES} bytes, files are at most {MAX_FILES}")
    for file in index.files:
        check_home_path(file.path)
        if file.size < 0 or not 0 <= file.mode <= 0o777:
            raise ValueError(f"{file.path[:120]!r} has an impossible size or mode")
    _check_distinct([file.path for file in index.files])


def _check_distinct(paths: Iterable[str]) -> None:
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if path in files:
            raise ValueError(f"{path[:120]!r} is there twice")
        files.add(path)
        folders.update(str(parent) for parent in PurePosixPath(path).parents)
    if both := files & folders:
        raise ValueError(f"{min(both)[:120]!r} is a file and a folder")
