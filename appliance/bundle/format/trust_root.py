"""Roots of trust: which keys may sign what, and how one root hands over to the next. Pure.

Invariants:
1. A root is followed only by version + 1, signed by the thresholds of role ``root`` in the old *and* in the new one.
2. A key counts once, whatever name it is listed under: its id is the sha256 of its public bytes.
3. Every role has at least as many keys as its threshold asks for, and a threshold of at least one. Only ``models`` may have no key: then no
   model is trusted. Its threshold is always 1: a snapshot carries one signature, and a promise that nobody keeps is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.dsse import MAX_SIGNATURES, Envelope, read_envelope
from appliance.bundle.format.ed25519 import KEY_BYTES, is_sound
from appliance.bundle.format.manifest import check_digest, exact_keys, format_time, parse_time, whole_number
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
PAYLOAD_TYPE: Final = "application/vnd.appliance.root+json"
ROLES: Final = ("bundle", "models", "root")
KEY_TYPES: Final = {"ed25519", "ecdsa-p256"}
MAX_CHAIN: Final = 100
MAX_KEYS: Final = 64
MAX_ROOT_BYTES: Final = 256 * 1024
MAX_CHAIN_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key: ``ed25519`` (32 raw bytes) or ``ecdsa-p256`` (SubjectPublicKeyInfo, DER)."""

    type: str
    public: bytes
    comment: str = ""

    @property
    def keyid(self) -> str:
        """sha256 (hex) of the public bytes."""
        return sha256(self.public).hexdigest()


@dataclass(frozen=True, slots=True)
class Role:
    """Whose signatures count, and how many are needed."""

    keys: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """One version of the root of trust."""

    version: int
    issued_at: datetime
    expires_at: datetime
    keys: Mapping[str, TrustedKey]
    roles: Mapping[str, Role]

    def to_bytes(self) -> bytes:
        """Canonical payload; what is signed, and for version 1 what the fingerprint is of."""
        return canonical_json.encode(
            {
                "schema_version": SCHEMA_VERSION,
                "version": self.version,
                "issued_at": format_time(self.issued_at),
                "expires_at": format_time(self.expires_at),
                "keys": {keyid: {"type": key.type, "public": key.public.hex(), "comment": key.comment} for keyid, key in sorted(self.keys.items())},
                "roles": {name: {"keys": sorted(role.keys), "threshold": role.threshold} for name, role in self.roles.items()},
            }
        )

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the payload; what stands on paper."""
        return sha256(self.to_bytes()).hexdigest()

    def is_met(self, role: str, envelope: Envelope) -> bool:
        """Whether enough keys of ``role`` signed ``envelope``."""
        wanted = self.roles[role]
        keys = {keyid: self.keys[keyid].public for keyid in wanted.keys if self.keys[keyid].type == "ed25519"}
        return len(envelope.signers(keys)) >= wanted.threshold


def parse_root(payload: bytes) -> TrustRoot:
    """Read a root strictly.

    Raises:
        ApplianceError: ``trust_invalid``.
    """
    document = canonical_json.decode(payload, "root of trust", code="trust_invalid", limit_bytes=MAX_ROOT_BYTES, limit_tables=MAX_KEYS + 6)
    try:
        top = exact_keys(document, {"schema_version", "version", "issued_at", "expires_at", "keys", "roles"}, "root of trust")
        if not canonical_json.is_integer(top["schema_version"], SCHEMA_VERSION):
            raise ValueError(f"root of trust: schema_version {str(top['schema_version'])[:20]!r} is not known here")
        keys = {keyid: _key(keyid, entry) for keyid, entry in _table(top["keys"], "keys").items()}
        roles = {name: _role(name, entry, keys) for name, entry in exact_keys(top["roles"], set(ROLES), "roles").items()}
        version = whole_number(top["version"], 1_000_000, "version")
        if version < 1 or len(keys) > MAX_KEYS:
            raise ValueError(f"root of trust: a version is 1 or more, keys are at most {MAX_KEYS}")
        return TrustRoot(version, parse_time(top["issued_at"]), parse_time(top["expires_at"]), keys, roles)
    except (ValueError, TypeError) as exc:
        raise distrust(str(exc)) from exc


def parse_chain(data: bytes) -> list[Envelope]:
    """``root-chain.json``: the envelopes of the roots, oldest first.

    Raises:
        ApplianceError: ``trust_invalid``.
    """
    document = canonical_json.decode(
        data, "root chain", code="trust_invalid", limit_bytes=MAX_CHAIN_BYTES, limit_tables=MAX_CHAIN * (MAX_SIGNATURES + 1)
    )
    if not isinstance(document, list) or not 0 < len(document) <= MAX_CHAIN:
        raise distrust(f"root chain: expected 1 to {MAX_CHAIN} roots")
    return [read_envelope(entry, "root", payload_type=PAYLOAD_TYPE, code="trust_invalid") for entry in document]


def chain_bytes(chain: Sequence[Envelope]) -> bytes:
    """Canonical form of a chain."""
    return canonical_json.encode([envelope.document() for envelope in chain])


def first_root(envelope: Envelope) -> TrustRoot:
    """A root that vouches for itself: its own threshold signed it. Whether it is the *right* one only a pin can tell.

    Raises:
        ApplianceError: ``trust_invalid``.
    """
    root = parse_root(envelope.payload)
    if not root.is_met("root", envelope):
        raise distrust(f"root of trust version {root.version}: not signed by the keys it names itself")
    return root


def next_root(current: TrustRoot, envelope: Envelope) -> TrustRoot:
    """The root that follows ``current``.

    Raises:
        ApplianceError: ``trust_invalid``.
    """
    root = first_root(envelope)
    if root.version != current.version + 1:
        raise distrust(f"root of trust version {root.version} cannot follow version {current.version}")
    if not current.is_met("root", envelope):
        raise distrust(f"root of trust version {root.version}: not signed by the keys of version {current.version}")
    return root


def distrust(message: str) -> ApplianceError:
    """The refusal of a root of trust."""
    return canonical_json.refusal("trust_invalid", message)


def _key(keyid: str, entry: object) -> TrustedKey:
    fields = exact_keys(entry, {"type", "public", "comment"}, "key")
    if fields["type"] not in KEY_TYPES or not isinstance(fields["public"], str) or not isinstance(fields["comment"], str):
        raise ValueError("key: unknown type, or public and comment are not text")
    key = TrustedKey(fields["type"], bytes.fromhex(fields["public"]), fields["comment"])
    if (key.type == "ed25519" and len(key.public) != KEY_BYTES) or len(key.public) > 1024 or key.public.hex() != fields["public"]:
        raise ValueError("key: malformed public bytes")
    if key.type == "ed25519" and not is_sound(key.public):
        raise ValueError(f"key {keyid[:12]}: a point of small order or not in its one spelling: anybody could sign with it")
    if key.keyid != check_digest(keyid):
        raise ValueError(f"key {keyid[:12]}: its id is not the digest of its public bytes")
    if not (len(key.comment) <= 200 and key.comment.isprintable()):
        raise ValueError(f"key {keyid[:12]}: comment too long or not printable")
    return key


def _role(name: str, entry: object, keys: Mapping[str, TrustedKey]) -> Role:
    fields = exact_keys(entry, {"keys", "threshold"}, f"role {name}")
    listed = fields["keys"]
    if not isinstance(listed, list) or listed != sorted({str(keyid) for keyid in listed}) or not set(listed) <= set(keys):
        raise ValueError(f"role {name}: keys must be sorted, distinct and described")
    kind = "ecdsa-p256" if name == "models" else "ed25519"
    if any(keys[keyid].type != kind for keyid in listed):
        raise ValueError(f"role {name}: its keys must be {kind}")
    threshold = whole_number(fields["threshold"], MAX_KEYS, f"role {name}: threshold")
    nobody = name == "models" and not listed and threshold == 1
    if not (1 <= threshold <= len(listed) or nobody):
        raise ValueError(f"role {name}: threshold {threshold} of {len(listed)} keys")
    if name == "models" and threshold != 1:
        raise ValueError("role models: its threshold is 1, because a model snapshot carries one signature")
    return Role(tuple(listed), threshold)


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what}: expected a table")
    return value
