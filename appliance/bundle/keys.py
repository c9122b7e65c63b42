"""A build station: its chain of roots of trust, and signing with the keys that are on it.

Owns: the folder of the station (``$APPLIANCE_STATION``, default ``./var/station``) with ``keys/`` and ``root-chain.json``. Does not own: the files in
``keys/`` (``key_ring``), what a root must look like (``format.trust_root``), how a root is
changed (``station_roots``), the private key of models (``appliance.hub.model_trust``; only its public part is in the root).

A site never reads this folder; it is for machines that build and sign.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.audit.durable_files import sync_folder, write_once
from appliance.bundle.format.dsse import Envelope
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, Role, TrustedKey, TrustRoot, chain_bytes, first_root, next_root, parse_chain
from appliance.bundle.key_ring import KeyRing, passphrase_from_environment, small_file
from appliance.bundle.verify import Pin
from appliance.kit.errors import ApplianceError

STATION_VARIABLE: Final = "APPLIANCE_STATION"
CHAIN_NAME: Final = "root-chain.json"
DEVELOPMENT: Final = "development"
DEFAULT_VALID_DAYS: Final = 3650


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
        chain = tuple(parse_chain(small_file(path, limit_bytes=2**20)))
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


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` in place of ``path``, whole or not at all, whatever happens to the power."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    write_once(temporary, data, mode=mode)
    temporary.replace(path)
    sync_folder(path.parent)


