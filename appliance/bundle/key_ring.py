"""The private keys of one machine, as files, and the public keys that others hand over.

Owns: ``keys/<keyid>.pem`` (private Ed25519, 0600, encrypted when there is a passphrase) and ``keys/<keyid>.pub.pem``. Does not own: who may sign
what (``keys``, ``format.trust_root``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

from appliance.audit.durable_files import write_once
from appliance.bundle.format.dsse import Envelope, Signature
from appliance.bundle.format.trust_root import TrustedKey
from appliance.kit.errors import ApplianceError

PASSPHRASE_VARIABLE: Final = "APPLIANCE_STATION_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
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
        data = small_file(path)
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


def read_public_key(path: Path, comment: str = "") -> TrustedKey:
    """Read a public key in PEM: Ed25519 for bundles and roots, ECDSA P-256 for models.

    Raises:
        ApplianceError: ``trust_invalid``.
    """
    try:
        key = load_pem_public_key(small_file(path))
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
    line = small_file(Path(name)).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise ApplianceError("trust_invalid", f"the passphrase file {name} is empty", hint="write the passphrase on its first line")
    return line


def small_file(path: Path, *, limit_bytes: int = _MAX_PEM_BYTES) -> bytes:
    """The content of a small file. Raises ``trust_invalid`` when it cannot be read or is larger."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ApplianceError("trust_invalid", f"cannot read {path}: {error.strerror}", hint="check the path and the rights") from error
    if len(data) > limit_bytes:
        raise ApplianceError("trust_invalid", f"{path} is larger than {limit_bytes} bytes", hint="it is not what it should be")
    return data
