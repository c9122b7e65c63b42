"""Makes tiny signed bundles in milliseconds, for tests: keys, roots of trust, any files in, a valid bundle (or a delta) out.

Owns: deterministic keys and the shortest way from files to bytes. Does not own: corruption (``tests/hostile/make_bundles.py`` takes the
members of a :class:`SmallBundle` apart and puts them together wrongly) and real building (``appliance.bundle.build``).

A :class:`SmallBundle` is a simulator: every field may be set before ``to_bytes``; what is not set is right. The same settings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.bundle.format import canonical_json
from appliance.bundle.format.container import BLOB_FOLDER, DELTA, END, MANIFEST, PROVENANCE, ROOT_CHAIN, header, padding
from appliance.bundle.format.delta import Delta
from appliance.bundle.format.dsse import Envelope, Signature
from appliance.bundle.format.manifest import FOLDERS, BundleFile, Chunk, Component, Manifest, Target
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, Role, TrustedKey, TrustRoot, chain_bytes
from appliance.bundle.verify import PROVENANCE_PREDICATE, STATEMENT, STATEMENT_TYPE, Pin, Policy

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
TARGET = Target("linux", "x86_64", "3.11")
_ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class SmallKey:
    """An Ed25519 key that is made from its name."""

    name: str

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(sha256(self.name.encode()).digest())

    @property
    def trusted(self) -> TrustedKey:
        return TrustedKey("ed25519", self.private.public_key().public_bytes_raw(), self.name)

    @property
    def keyid(self) -> str:
        return self.trusted.keyid

    def signature(self, envelope: Envelope) -> Signature:
        """What this key signs over ``envelope``."""
        return Signature(self.keyid, self.private.sign(envelope.signed_bytes))


def model_key(name: str = "models") -> ec.EllipticCurvePrivateKey:
    """A P-256 key that is made from its name."""
    return ec.derive_private_key(int.from_bytes(sha256(name.encode()).digest(), "big") % (_ORDER_OF_P256 - 1) + 1, ec.SECP256R1())


def sign(payload_type: str, payload: bytes, keys: Iterable[SmallKey]) -> Envelope:
    """An envelope with the signatures of ``keys``, sorted by key id."""
    envelope = Envelope(payload_type, payload)
    return replace(envelope, signatures=tuple(sorted((key.signature(envelope) for key in keys), key=lambda entry: entry.keyid)))


@dataclass
class SmallTrust:
    """A chain of roots and the keys behind it. One set of keys has the roles ``root`` and ``bundle``."""

    keys: list[SmallKey] = field(default_factory=lambda: [SmallKey("key-1")])
    threshold: int = 1
    issued_at: datetime = NOW
    expires_at: datetime = NOW + timedelta(days=3650)
    chain: list[Envelope] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.chain:
            self.chain.append(sign(PAYLOAD_TYPE, self.root(1).to_bytes(), self.keys[: self.threshold]))

    def root(self, version: int) -> TrustRoot:
        """The root of the present keys as ``version``."""
        ids = tuple(sorted(key.keyid for key in self.keys))
        models = TrustedKey("ecdsa-p256", model_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "models")
        keys = {key.keyid: key for key in (*(key.trusted for key in self.keys), models)}
        roles = {"root": Role(ids, self.threshold), "bundle": Role(ids, self.threshold), "models": Role((models.keyid,), 1)}
        return TrustRoot(version, self.issued_at, self.expires_at, keys, roles)

    @property
    def current(self) -> TrustRoot:
        """The last root of the chain."""
        from appliance.bundle.format.trust_root import parse_root

        return parse_root(self.chain[-1].payload)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the first root's payload."""
        return sha256(self.chain[0].payload).hexdigest()

    @property
    def pin(self) -> Pin:
        """Trust begins at the first root."""
        return Pin(first_fingerprint=self.fingerprint)

    def rotate(self, keys: Sequence[SmallKey], threshold: int = 1, *, signers: Sequence[SmallKey] | None = None) -> None:
        """The next root, signed by all old and all new keys (or by ``signers``)."""
        old, self.keys, self.threshold = self.keys, list(keys), threshold
        everyone = {key.keyid: key for key in (*old, *keys)}.values()
        payload = self.root(len(self.chain) + 1).to_bytes()
        self.chain.append(sign(PAYLOAD_TYPE, payload, everyone if signers is None else signers))


def small_trust(*, keys: int = 1, threshold: int = 1, expires_at: datetime | None = None) -> SmallTrust:
    """A first root with ``keys`` keys."""
    return SmallTrust([SmallKey(f"key-{number}") for number in range(1, keys + 1)], threshold, expires_at=expires_at or NOW + timedelta(days=3650))


@dataclass
class SmallBundle:
    """Files and settings of one bundle.

    Attributes:
        files: path in the generation → content; which component a file belongs to follows from its folder.
        executable: paths with mode 0755.
        chunk_bytes: files are cut into chunks of this size, so that small files can have several.
        signers: who signs the provenance; default: as many keys of the trust as its threshold asks for.
    """

    trust: SmallTrust = field(default_factory=small_trust)
    files: dict[str, bytes] = field(default_factory=dict)
    executable: set[str] = field(default_factory=set)
    name: str = "embedded"
    version: str = "0.1.0"
    sequence: int = 1
    issued_at: datetime = NOW
    expires_at: datetime = NOW + timedelta(days=730)
    target: Target = TARGET
    chunk_bytes: int = 4 * 2**20
    signers: Sequence[SmallKey] | None = None

    def manifest(self) -> Manifest:
        """The manifest of the files as they are now."""
        kinds: dict[str, list[BundleFile]] = {}
        for path in sorted(self.files):
            kinds.setdefault(kind_of(path), []).append(self._file(path))
        components = tuple(Component(kind, kind, self.version, tuple(files)) for kind, files in sorted(kinds.items()))
        return Manifest(self.name, self.version, self.sequence, self.issued_at, self.expires_at, self.target, components)

    def statement(self, manifest_sha256: str) -> dict[str, Any]:
        """What is signed: an in-toto statement about the manifest."""
        predicate = {
            "buildDefinition": {"buildType": "small", "externalParameters": {}, "resolvedDependencies": []},
            "runDetails": {"builder": {"id": "small"}},
        }
        subject = [{"name": MANIFEST, "digest": {"sha256": manifest_sha256}}]
        return {"_type": STATEMENT, "predicateType": PROVENANCE_PREDICATE, "subject": subject, "predicate": predicate}

    def provenance(self, manifest: bytes) -> bytes:
        """The signed statement about ``manifest``."""
        signers = self.trust.keys[: self.trust.threshold] if self.signers is None else self.signers
        return sign(STATEMENT_TYPE, canonical_json.encode(self.statement(sha256(manifest).hexdigest())), signers).to_bytes()

    def members(self, *, base: SmallBundle | None = None) -> list[tuple[str, bytes]]:
        """Name and content of every member in order; with ``base`` those of a delta."""
        manifest = self.manifest()
        heads = [
            (PROVENANCE, self.provenance(manifest.to_bytes())),
            (ROOT_CHAIN, chain_bytes(self.trust.chain)),
            (MANIFEST, manifest.to_bytes()),
        ]
        carried: Iterable[str] = (blob.sha256 for blob in manifest.blobs)
        if base is not None:
            delta = Delta.between(base.manifest(), manifest)
            heads.append((DELTA, delta.to_bytes()))
            carried = delta.blobs
        blobs = self.blobs()
        return [*heads, *((BLOB_FOLDER + digest, blobs[digest]) for digest in carried)]

    def blobs(self) -> dict[str, bytes]:
        """Digest (hex) → content of every chunk."""
        return {sha256(piece).hexdigest(): piece for data in self.files.values() for piece in self._pieces(data)}

    def to_bytes(self, *, base: SmallBundle | None = None) -> bytes:
        """The whole file; with ``base`` the delta from it."""
        return assemble(self.members(base=base))

    def write(self, path: Path, *, base: SmallBundle | None = None) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.to_bytes(base=base))
        return path

    @property
    def policy(self) -> Policy:
        """A policy that accepts this bundle."""
        return Policy(NOW, TARGET)

    def _pieces(self, data: bytes) -> list[bytes]:
        return [data[start : start + self.chunk_bytes] for start in range(0, len(data), self.chunk_bytes)]

    def _file(self, path: str) -> BundleFile:
        data = self.files[path]
        chunks = tuple(Chunk(sha256(piece).hexdigest(), len(piece)) for piece in self._pieces(data))
        return BundleFile(path, "0755" if path in self.executable else "0644", len(data), sha256(data).hexdigest(), chunks)


def small_bundle(files: dict[str, bytes] | None = None, **settings: Any) -> SmallBundle:
    """A bundle of a few files of several kinds, or of ``files``."""
    if files is None:
        files = {
            "app/appliance/__init__.py": b'"""Small."""\n',
            "app/appliance/empty.txt": b"",
            "app/docs/bundle.md": b"# Small\n" * 40,
            "app/smoke-tests/10_health.py": b"print('ok')\n",
            "meta/sbom.cdx.json": b'{"bomFormat":"CycloneDX"}\n',
            "models/llm/small-v1/weights.bin": bytes(range(256)) * 8,
            "wheelhouse/small-1.0-py3-none-any.whl": b"PK-not-really" * 50,
        }
    return SmallBundle(files=dict(files), **{"chunk_bytes": 1024, **settings})


def kind_of(path: str) -> str:
    """The kind of component whose folder is the longest that ``path`` lies in."""
    return max((kind for kind, folder in FOLDERS.items() if path.startswith(folder)), key=lambda kind: len(FOLDERS[kind]))


def assemble(members: Iterable[tuple[str, bytes]], end: bytes = END) -> bytes:
    """The bytes of a container with ``members``, right or wrong."""
    return b"".join(header(name, len(data)) + data + padding(len(data)) for name, data in members) + end
