"""Whose signatures on models count in this home, and the key that this home signs with.

Owns: ``keys/models.key.pem`` (private, 0600) and ``keys/models.pub.pem`` of the home. Does not own: the form of a signature (``model_signing``), the
root of trust of a site (``appliance.bundle``; it was verified at install and belongs to root, here it is only read).

Invariants:
1. Trusted are the home's own public key and the keys of role ``models`` in the site's root of trust, or in the later one that the running generation
   was verified with (until its first start is confirmed the site has not taken it over yet); nothing else, nothing from inside a snapshot.
2. A sealed site makes no key by itself: what it loads was signed where the bundle was built, or by a key that an operator put there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from appliance.audit.durable_files import write_once
from appliance.bundle.format.dsse import parse_envelope
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, parse_chain, parse_root
from appliance.hub.model_signing import MAX_SIGNATURE_BYTES, PrivateKey, PublicKey, UntrustedKeyError, key_hint, sign_digests, signed_digests
from appliance.hub.roots import Roots, generation_folder
from appliance.hub.snapshot_files import read_plain
from appliance.hub.snapshot_index import SIGNATURE_NAME
from appliance.hub.snapshots import Snapshot, altered, open_snapshot
from appliance.kit.errors import ApplianceError
from appliance.kit.ownership import acting_as_owner

PRIVATE_NAME: Final = "models.key.pem"
PUBLIC_NAME: Final = "models.pub.pem"
_MAX_KEY_BYTES: Final = 64 * 1024
_MAX_ROOT_BYTES: Final = 4 * 1024 * 1024
_SIGN_HINT: Final = (
    "on a station run `make setup`, which signs what models.toml pins; on a site bring a signed copy (appliance models export, import)"
)


@dataclass(frozen=True, slots=True)
class ModelSigner:
    """A private key that signs snapshots."""

    key: PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> ModelSigner:
        """A new key, in memory."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @property
    def public_key(self) -> PublicKey:
        """What others check with."""
        return self.key.public_key()

    def sign(self, name: str, digests: Mapping[str, str]) -> bytes:
        """``model.sig`` for a folder ``name`` with files ``digests``; the same bytes every time."""
        return sign_digests(name, digests, self.key)


@dataclass(frozen=True, slots=True)
class ModelTrust:
    """Trusted public keys, by their hint."""

    keys: Mapping[str, PublicKey]

    @classmethod
    def of(cls, *keys: PublicKey) -> ModelTrust:
        """Trust in exactly these keys."""
        return cls({key_hint(key): key for key in keys})

    def with_keys(self, *keys: PublicKey) -> ModelTrust:
        """Trust in these keys too."""
        return ModelTrust({**self.keys, **{key_hint(key): key for key in keys}})

    @classmethod
    def load(cls, home: Path) -> ModelTrust:
        """What this home trusts.

        Raises:
            ApplianceError: ``trust_invalid`` when a key or the root of trust is there and cannot be read.
        """
        own = home / "keys" / PUBLIC_NAME
        return cls.of(*([read_public_key(own)] if own.exists() else []), *_site_keys())

    def check(self, snapshot: Snapshot) -> None:
        """Check the signature; it covers the index and thereby every digest in it.

        Raises:
            ApplianceError: ``snapshot_unsigned`` without a signature or with that of another key, ``snapshot_altered`` when it does not hold.
        """
        try:
            signature = read_plain(snapshot.folder / SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
        except FileNotFoundError as exc:
            raise _unsigned(snapshot, "is missing") from exc
        except (OSError, ValueError) as exc:
            raise altered(snapshot.label, SIGNATURE_NAME, str(exc)) from exc
        self.check_bytes(snapshot, signature)

    def check_bytes(self, snapshot: Snapshot, signature: bytes) -> None:
        """The same for a signature that lies elsewhere. Raises as :meth:`check`."""
        try:
            signed = signed_digests(signature, self.keys)
        except UntrustedKeyError as exc:
            raise _unsigned(snapshot, str(exc)) from exc
        except (ValueError, RecursionError) as exc:
            raise altered(snapshot.label, SIGNATURE_NAME, str(exc)) from exc
        expected = snapshot.digests
        for name in sorted(expected.keys() | signed.keys()):
            if expected.get(name) != signed.get(name):
                raise altered(snapshot.label, name, f"is not what {SIGNATURE_NAME} was made for")


def open_signed(hub: Roots, path: str, expected_digest: str, trust: ModelTrust) -> Snapshot:
    """What a loader starts with: the snapshot with the pinned digest and a trusted signature. Its files are still to be checked.

    Raises:
        ApplianceError: ``snapshot_missing``, ``snapshot_altered``, ``snapshot_unsigned``.
    """
    snapshot = open_snapshot(hub, path, expected_digest)
    trust.check(snapshot)
    return snapshot


def home_signer(home: Path, *, create: bool | None = None) -> ModelSigner | None:
    """The key of this home; made when there is none, except on a sealed site. None: this home does not sign.

    Raises:
        ApplianceError: ``trust_invalid`` when the key cannot be read, ``home_invalid`` or ``disk_full`` when it cannot be written.
    """
    with acting_as_owner(home):
        return _signer_in(home / "keys", create=generation_folder() is None if create is None else create)


def read_public_key(path: Path) -> PublicKey:
    """An ECDSA P-256 key in PEM. Raises ``trust_invalid``."""
    try:
        key = load_pem_public_key(read_plain(path, _MAX_KEY_BYTES))
    except (OSError, ValueError, UnsupportedAlgorithm) as exc:
        raise _bad_key(path) from exc
    return _p256(key, path)


def _signer_in(keys: Path, *, create: bool) -> ModelSigner | None:
    private, public = keys / PRIVATE_NAME, keys / PUBLIC_NAME
    if not private.exists():
        if not create:
            return None
        made = ModelSigner.generate()
        write_once(private, made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    signer = ModelSigner(_read_private(private))
    write_once(public, signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o644)
    if key_hint(read_public_key(public)) != key_hint(signer.public_key):
        raise ApplianceError("trust_invalid", f"{public} does not belong to {private}", hint=f"restore both, or delete {public} to write it again")
    return signer


def _read_private(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(read_plain(path, _MAX_KEY_BYTES), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise _bad_key(path) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key(path)
    return key


def _site_keys() -> list[PublicKey]:
    generation = generation_folder()
    if generation is None:
        return []
    path = generation.parent.parent / "trust" / "root.dsse.json"
    data, chain = _read_root(path), _read_root(generation / "root-chain.json")
    envelopes = [] if data is None else [parse_envelope(data, path.name, payload_type=PAYLOAD_TYPE, code="trust_invalid")]
    envelopes += [] if chain is None else parse_chain(chain)[-1:]
    roots = [parse_root(envelope.payload) for envelope in envelopes]
    if not roots:
        return []
    root = max(roots, key=lambda entry: entry.version)
    return [_p256(_from_der(root.keys[keyid].public, path), path) for keyid in root.roles["models"].keys]


def _read_root(path: Path) -> bytes | None:
    try:
        return read_plain(path, _MAX_ROOT_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ApplianceError("trust_invalid", f"cannot read {path}: {exc}", hint="install a bundle again; the root of trust comes with it") from exc


def _from_der(data: bytes, path: Path) -> object:
    try:
        return load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _bad_key(path) from exc


def _p256(key: object, path: Path) -> PublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key(path)
    return key


def _bad_key(path: Path) -> ApplianceError:
    return ApplianceError("trust_invalid", f"{path} has no readable ECDSA P-256 key", hint=f"restore {os.fspath(path)} from a backup")


def _unsigned(snapshot: Snapshot, reason: str) -> ApplianceError:
    return ApplianceError("snapshot_unsigned", f"model snapshot {snapshot.label}: {SIGNATURE_NAME} {reason}", hint=_SIGN_HINT)
