"""DSSE envelopes (Dead Simple Signing Envelope 1.0): a payload, its type, and signatures over both. Pure.

What is signed is the pre-authentication encoding ``DSSEv1 <len type> <type> <len payload> <payload>``; a signature over one payload type
never passes for another.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.ed25519 import is_signed
from appliance.bundle.format.manifest import check_digest, exact_keys
from appliance.kit.errors import ApplianceError

MAX_SIGNATURES: Final = 64
MAX_ENVELOPE_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature and the id of the key that is said to have made it."""

    keyid: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with signatures; nothing is proven until :meth:`signers` is asked."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    @property
    def signed_bytes(self) -> bytes:
        """The pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def signers(self, keys: Mapping[str, bytes]) -> frozenset[str]:
        """Ids of those ``keys`` (id → 32 raw Ed25519 bytes) whose signature holds; each key counts once."""
        message = self.signed_bytes
        return frozenset(entry.keyid for entry in self.signatures if entry.keyid in keys and is_signed(keys[entry.keyid], entry.signature, message))

    def document(self) -> dict[str, Any]:
        """As a JSON document, signatures sorted by key id."""
        return {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": entry.keyid, "sig": base64.b64encode(entry.signature).decode()}
                for entry in sorted(self.signatures, key=lambda entry: entry.keyid)
            ],
        }

    def to_bytes(self) -> bytes:
        """Canonical form."""
        return canonical_json.encode(self.document())


def parse_envelope(data: bytes, what: str, *, payload_type: str, code: str = "bundle_invalid") -> Envelope:
    """Read an envelope whose payload must have ``payload_type``.

    Raises:
        ApplianceError: ``code``.
    """
    document = canonical_json.decode(
        data, what, code=code, limit_bytes=MAX_ENVELOPE_BYTES, limit_tables=MAX_SIGNATURES + 1, limit_values=3 * MAX_SIGNATURES
    )
    return read_envelope(document, what, payload_type=payload_type, code=code)


def read_envelope(document: Any, what: str, *, payload_type: str, code: str = "bundle_invalid") -> Envelope:
    """The same for a document that is parsed already."""
    try:
        fields = exact_keys(document, {"payloadType", "payload", "signatures"}, what)
        if fields["payloadType"] != payload_type:
            raise ValueError(f"{what}: its payload is not {payload_type}")
        if not isinstance(fields["signatures"], list) or len(fields["signatures"]) > MAX_SIGNATURES:
            raise ValueError(f"{what}: at most {MAX_SIGNATURES} signatures")
        signatures = tuple(_signature(entry, what) for entry in fields["signatures"])
        keyids = [entry.keyid for entry in signatures]
        if keyids != sorted(set(keyids)):
            raise ValueError(f"{what}: signatures must be sorted by key and occur once")
        return Envelope(payload_type, _bytes(fields["payload"], what), signatures)
    except (ValueError, TypeError) as exc:
        raise _refusal(code, str(exc)) from exc


def _signature(entry: object, what: str) -> Signature:
    fields = exact_keys(entry, {"keyid", "sig"}, f"{what}: signature")
    return Signature(check_digest(fields["keyid"]), _bytes(fields["sig"], what))


def _bytes(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{what}: expected base64 text")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(f"{what}: not base64") from exc
    if base64.b64encode(data).decode() != text:
        raise ValueError(f"{what}: not the one base64 spelling")
    return data


def _refusal(code: str, message: str) -> ApplianceError:
    return canonical_json.refusal(code, message)
