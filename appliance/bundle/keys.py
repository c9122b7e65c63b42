"""The keys folder of a build station: private Ed25519 keys, the chain of roots of trust, and signing with them.

Owns: the files of the station (``$APPLIANCE_STATION``, default ``./var/station``): ``keys/<keyid>.pem`` (private, 0600, encrypted when there is
a passphrase), ``keys/<keyid>.pub.pem``, ``root-chain.json``. Does not own: what a root must look like (``format.trust_root``), how a root is
changed (``station_roots``), the private key of models (``appliance.hub.model_trust``; only its public part is in the root).

A site never reads this folder; it is for machines that build and sign.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from appliance.audit.durable_files import sync_folder, write_once
from appliance.bundle.format.dsse import Envelope, Signature
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, Role, TrustedKey, TrustRoot, chain_bytes, first_root, next_root, parse_chain
from appliance.bundle.verify import Pin
from appliance.kit.errors import ApplianceError

STATION_VARIABLE: Final = "APPLIANCE_STATION"
PASSPHRASE_VARIABLE: Final = "APPLIANCE_STATION_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
CHAIN_NAME: Final = "root-chain.json"
DEVELOPMENT: Final = "development"
DEFAULT_VALID_DAYS: Final = 3650
_MAX_PEM_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The private keys of one machine.

    Attributes:
        folder: ``keys/`` of the station.
        passphrase: what the private keys are encrypted with; None for plain files.
    """

    folder: Path
    passphrase: bytes | None = field(default=None, repr=False)

    def make(self, comment: str) -> TrustedKey:
        """Make a key pair. Raises ``disk_full``, ``home_invalid``."""
        private = Ed25519PrivateKey.generate()
        key = TrustedKey("ed25519", private.public_key().public_bytes_raw(), comment)
        encryption = BestAvailableEncryption(self.passphrase) if self.passphrase else NoEncryption()
        write_once(self._path(key.keyid), private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), mode=0o600)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_once(self.public_path(key.keyid), public, mode=0o644)
        return key

    def has(self, keyid: str) -> bool:
        """Whether the private key is here."""
        return self._path(keyid).is_file()

    def public_path(self, keyid: str) -> Path:
        """The file to hand to other stations."""
        return self.folder / f"{keyid}.pub.pem"

    def sign(self, envelope: Envelope, keyids: Sequence[str]) -> Envelope:
        """``envelope`` with signatures of those ``keyids`` whose private keys are here; others stay as they are.

        Raises:
            ApplianceError: ``trust_invalid`` when none is here or a key file cannot be read.
        """
        here = [keyid for keyid in keyids if self.has(keyid)]
        if not here:
            raise ApplianceError(
                "trust_invalid",
                f"no private key in {self.folder} may sign this",
                hint="appliance trust show says which keys may; copy the file to the station that has one of them",
            )
        found = {entry.keyid: entry for entry in envelope.signatures}
        for keyid in here:
            found[keyid] = Signature(keyid, self._load(keyid).sign(envelope.signed_bytes))
        return replace(envelope, signatures=tuple(entry for _, entry in sorted(found.items())))

    def _load(self, keyid: str) -> Ed25519PrivateKey:
        path = self._path(keyid)
        data = _small_file(path)
        encrypted = b"ENCRYPTED" in data
        try:
            key = load_pem_private_key(data, password=self.passphrase if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            hint = f"the key is encrypted: name the file with its passphrase in ${PASSPHRASE_VARIABLE}" if encrypted else "restore it from a backup"
            raise ApplianceError("trust_invalid", f"cannot read the private key {path}", hint=hint) from error
        if not isinstance(key, Ed25519PrivateKey) or sha256(key.public_key().public_bytes_raw()).hexdigest() != keyid:
            raise ApplianceError("trust_invalid", f"{path} holds another key than its name says", hint="restore it from a backup")
        return key

    def _path(self, keyid: str) -> Path:
        return self.folder / f"{keyid}.pem"


@dataclass(frozen=True, slots=True)
class Station:
    """A station that has a root of trust.

    Attributes:
        folder: the station's folder.
        chain: the roots, oldest first; checked when opened.
        root: the last of them.
        ring: the private keys that are on this machine; a threshold may need those of others.
    """

    folder: Path
    chain: tuple[Envelope, ...]
    root: TrustRoot
    ring: KeyRing

    @classmethod
    def open(cls, folder: Path, *, passphrase: bytes | None = None) -> Station:
        """Open an existing station.

        Raises:
            ApplianceError: ``trust_invalid`` when there is none, or its chain does not hold.
        """
        path = folder / CHAIN_NAME
        if not path.is_file():
            raise ApplianceError("trust_invalid", f"no root of trust in {folder}", hint="make one: appliance trust init --keys 3 --threshold 2")
        chain = tuple(parse_chain(_small_file(path, limit_bytes=2**20)))
        return cls(folder, chain, last_root(chain), KeyRing(folder / "keys", passphrase or passphrase_from_environment()))

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        keys: int = 1,
        threshold: int = 1,
        root_keys: int = 0,
        root_threshold: int = 0,
        public_keys: Sequence[TrustedKey] = (),
        model_keys: Sequence[TrustedKey] = (),
        valid_days: int = DEFAULT_VALID_DAYS,
        comment: str = "bundle",
        passphrase: bytes | None = None,
        now: datetime | None = None,
    ) -> Station:
        """Make keys and the first root.

        Args:
            folder: the station's folder; must not have a root yet.
            keys: how many keys of role ``bundle`` to make here.
            threshold: how many of them must sign a bundle.
            root_keys: how many further keys of role ``root`` to make; 0: the keys of role ``bundle`` have both roles.
            root_threshold: how many must sign a root; default: as many as a bundle needs, at most ``root_keys``.
            public_keys: keys of other machines that get role ``bundle`` too. Their machines need not sign the first root unless they are
                also ``root`` keys and needed for its threshold, so with them use ``root_keys``.
            model_keys: ECDSA P-256 keys that sign model snapshots.
            valid_days: until the root expires.
            comment: what the keys are called.
            passphrase: encrypt the private keys.
            now: default: this moment.

        Raises:
            ApplianceError: ``conflict`` when there is a root already, ``invalid_request`` for thresholds that cannot be met.
        """
        if (folder / CHAIN_NAME).exists():
            raise ApplianceError("conflict", f"there is a root of trust in {folder}", hint="change it with appliance trust rotate")
        at_root = root_threshold or (min(threshold, root_keys) if root_keys else threshold)
        if not 1 <= threshold <= keys + len(public_keys) or not 1 <= at_root <= (root_keys or keys):
            raise ApplianceError(
                "invalid_request",
                "a threshold is at least 1 and at most the number of keys; the first root is signed here",
                hint="appliance trust init --help",
            )
        ring = KeyRing(folder / "keys", passphrase or passphrase_from_environment())
        bundle = [*(ring.make(f"{comment} {number}") for number in range(1, keys + 1)), *public_keys]
        roots = [ring.make(f"root {number}") for number in range(1, root_keys + 1)] or bundle
        start = (now or datetime.now(UTC)).replace(microsecond=0)
        described = {key.keyid: key for key in (*bundle, *roots, *model_keys)}
        roles = {
            "bundle": role_of(bundle, threshold),
            "root": role_of(roots, at_root),
            "models": role_of(model_keys, 1),
        }
        root = TrustRoot(1, start, start + timedelta(days=valid_days), described, roles)
        envelope = ring.sign(Envelope(PAYLOAD_TYPE, root.to_bytes()), root.roles["root"].keys)
        first_root(envelope)
        write_once(folder / CHAIN_NAME, chain_bytes([envelope]), mode=0o644)
        return cls.open(folder, passphrase=passphrase)

    @classmethod
    def adopt(cls, folder: Path, chain: Sequence[Envelope], fingerprint: str) -> Station:
        """A station that only signs: takes over the chain of another one after its first root was compared with paper. Raises ``trust_invalid``."""
        last_root(chain)
        if sha256(chain[0].payload).hexdigest() != fingerprint:
            raise ApplianceError("trust_invalid", "the first root has another fingerprint", hint="compare with paper; do not go on while they differ")
        write_once(folder / CHAIN_NAME, chain_bytes(chain), mode=0o644)
        return cls.open(folder)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the first root: what the operator of a site compares with paper."""
        return sha256(self.chain[0].payload).hexdigest()

    @property
    def chain_bytes(self) -> bytes:
        """What goes into a bundle as ``root-chain.json``."""
        return chain_bytes(self.chain)

    @property
    def pin(self) -> Pin:
        """Trust in this station's root: a bundle whose chain ends before it (signed by a key that was since removed, say) is refused."""
        return Pin(self.root, self.fingerprint)

    @property
    def is_development(self) -> bool:
        """Whether the root made itself at a first build: one key, no ceremony."""
        return any(key.comment.startswith(DEVELOPMENT) for key in self.root.keys.values())

    def here(self, role: str) -> tuple[str, ...]:
        """Ids of the keys of ``role`` whose private part is on this machine."""
        return tuple(keyid for keyid in self.root.roles[role].keys if self.ring.has(keyid))

    def sign(self, payload_type: str, payload: bytes, *, role: str = "bundle") -> Envelope:
        """An envelope signed with as many keys of ``role`` as are here; see :meth:`missing_signatures`. Raises ``trust_invalid``."""
        return self.add_signature(Envelope(payload_type, payload), role=role)

    def add_signature(self, envelope: Envelope, *, role: str = "bundle") -> Envelope:
        """``envelope`` with the signatures of this machine's keys of ``role`` added. Raises ``trust_invalid``."""
        return self.ring.sign(envelope, self.root.roles[role].keys)

    def missing_signatures(self, envelope: Envelope, *, role: str = "bundle") -> int:
        """How many more keys of ``role`` have to sign ``envelope``."""
        wanted = self.root.roles[role]
        return max(0, wanted.threshold - len(envelope.signers({keyid: self.root.keys[keyid].public for keyid in wanted.keys})))

    def with_chain(self, chain: Sequence[Envelope]) -> Station:
        """Replace the chain by a longer one that continues it. Raises ``trust_invalid``."""
        if len(chain) <= len(self.chain) or any(old.payload != new.payload for old, new in zip(self.chain, chain, strict=False)):
            raise ApplianceError("trust_invalid", "this chain of roots does not continue the one of this station", hint="appliance trust show")
        root = last_root(chain)
        replace_file(self.folder / CHAIN_NAME, chain_bytes(chain))
        return replace(self, chain=tuple(chain), root=root)


def station_folder() -> Path:
    """``$APPLIANCE_STATION``, or ``./var/station``."""
    return Path(os.environ.get(STATION_VARIABLE) or "var/station").absolute()


def open_or_create_station(folder: Path, *, model_keys: Sequence[TrustedKey] = ()) -> tuple[Station, bool]:
    """The station of ``folder``; when there is none, one with a development root: one key, threshold one, no ceremony.

    A development root follows ``model_keys`` by itself; a real one is changed by ``appliance trust rotate`` only.

    Returns:
        The station, and whether it was made just now (the caller warns the operator, and shows the fingerprint).
    """
    if not (folder / CHAIN_NAME).exists():
        return Station.create(folder, comment=DEVELOPMENT, model_keys=model_keys), True
    station = Station.open(folder)
    if not station.is_development or {key.keyid for key in model_keys} <= set(station.root.roles["models"].keys):
        return station, False
    from appliance.bundle.station_roots import RootChange, rotate

    return rotate(station, RootChange(role="models", add=tuple(model_keys)))[0], False


def last_root(chain: Sequence[Envelope]) -> TrustRoot:
    """Check a chain from its first root on and return the last. Whether the first is the right one only a pin can tell. Raises ``trust_invalid``."""
    root = first_root(chain[0])
    for envelope in chain[1:]:
        root = next_root(root, envelope)
    return root


def role_of(keys: Sequence[TrustedKey], threshold: int) -> Role:
    """A role of ``keys``, sorted."""
    return Role(tuple(sorted({key.keyid for key in keys})), threshold)


def read_public_key(path: Path, comment: str = "") -> TrustedKey:
    """Read a public key in PEM: Ed25519 for bundles and roots, ECDSA P-256 for models.

    Raises:
        ApplianceError: ``trust_invalid``.
    """
    try:
        key = load_pem_public_key(_small_file(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ApplianceError("trust_invalid", f"{path} is not a public key in PEM", hint="expected Ed25519 or ECDSA P-256") from error
    if isinstance(key, Ed25519PublicKey):
        return TrustedKey("ed25519", key.public_bytes_raw(), comment or path.stem[:60])
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return TrustedKey("ecdsa-p256", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), comment or path.stem[:60])
    raise ApplianceError("trust_invalid", f"{path}: keys of this kind are not used here", hint="expected Ed25519 or ECDSA P-256")


def passphrase_from_environment() -> bytes | None:
    """The first line of the file that ``$APPLIANCE_STATION_PASSPHRASE_FILE`` names. Raises ``trust_invalid`` when it is empty or unreadable."""
    name = os.environ.get(PASSPHRASE_VARIABLE)
    if not name:
        return None
    line = _small_file(Path(name)).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise ApplianceError("trust_invalid", f"the passphrase file {name} is empty", hint="write the passphrase on its first line")
    return line


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` in place of ``path``, whole or not at all, whatever happens to the power."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    write_once(temporary, data, mode=mode)
    temporary.replace(path)
    sync_folder(path.parent)


def _small_file(path: Path, *, limit_bytes: int = _MAX_PEM_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ApplianceError("trust_invalid", f"cannot read {path}: {error.strerror}", hint="check the path and the rights") from error
    if len(data) > limit_bytes:
        raise ApplianceError("trust_invalid", f"{path} is larger than {limit_bytes} bytes", hint="it is not what it should be")
    return data
