"""Whether a bundle may be unpacked: a state machine over what was read. No files, no clock, no network: everything comes as an argument.

Steps, in this order only (a step out of order is a bug and raises ``RuntimeError``):

1. :meth:`accept_roots`       the chain of roots of trust starts at the pin, each root is signed by the one before and by itself, the last is valid now
2. :meth:`accept_provenance`  enough distinct keys of role ``bundle`` in the last root signed the provenance
3. :meth:`accept_manifest`    the manifest has the digest that the provenance names, and is well formed within limits
4. :meth:`accept_policy`      not expired, not from the future, made for this platform, of the name that is installed, not older than what is installed
5. :meth:`accept_layout`      the file is exactly as long as heads and blobs make it
6. :meth:`accept_blob`        every blob that the file carries, each exactly once, has its digest (any order, from several threads)
7. :meth:`finish`             nothing is missing; only now there is a :class:`VerifiedBundle`

Invariants:
a. No :class:`VerifiedBundle` exists unless all steps passed, and it has no other maker.
b. Nothing of the manifest is looked at before step 2 has passed: unsigned bytes reach no parser but those of JSON and DSSE.
c. A refusal is final: after it every further step refuses.
d. Roots only move forward: a chain whose last version is below the site's is refused.
e. An override (``allow_older``, ``allow_expired``) never skips a check: it is noted in :attr:`VerifiedBundle.overrides` for the history.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import BLOB_FOLDER, END, MANIFEST, PROVENANCE, Member, lay_out
from appliance.bundle.format.delta import Delta, parse_delta
from appliance.bundle.format.dsse import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from appliance.bundle.format.manifest import Manifest, Target, check_digest, format_time, invalid, parse_manifest
from appliance.bundle.format.trust_root import TrustRoot, distrust, first_root, next_root, parse_chain
from appliance.kit.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator

STATEMENT_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
CLOCK_SKEW: Final = timedelta(days=1)  # a bundle may be this much ahead of the clock of the site
PROVENANCE_PREDICATE: Final = "https://slsa.dev/provenance/v1"


@dataclass(frozen=True, slots=True)
class Pin:
    """Where trust starts: the current root of an installed site, or the fingerprint (sha256 hex of its payload) of the first root, read from paper.

    With both, both must hold; with neither nothing is accepted.
    """

    root: TrustRoot | None = None
    first_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """What a site has confirmed before: name of its bundles, the highest sequence, and the manifest digest of that sequence."""

    name: str
    sequence: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What this site asks for.

    Attributes:
        now: time of the site's clock, or the latest time the site has seen, whichever is later.
        target: platform of the site; None on a station that only checks.
        installed: None on a bare host.
        allow_older: go back behind ``installed`` on purpose.
        allow_expired: accept an expired bundle or root on purpose.
    """

    now: datetime
    target: Target | None = None
    installed: Installed | None = None
    allow_older: bool = False
    allow_expired: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle that passed every step.

    Attributes:
        manifest: what is in it.
        root: the root of trust that the site keeps from now on.
        delta: which blobs are here when it is a delta; None for a full bundle.
        signers: key ids whose signatures counted.
        overrides: which refusals were overridden on purpose, in words, for the history.
        provenance: the signed statement.
    """

    manifest: Manifest
    root: TrustRoot
    delta: Delta | None
    signers: tuple[str, ...]
    overrides: tuple[str, ...]
    provenance: dict[str, Any]


class _Step(IntEnum):
    ROOTS = 1
    PROVENANCE = 2
    MANIFEST = 3
    POLICY = 4
    LAYOUT = 5
    BLOBS = 6
    FINISHED = 7
    REFUSED = 8


class BundleVerification:
    """One verification of one file; see the module's docstring for the steps."""

    def __init__(self, pin: Pin, policy: Policy) -> None:
        self._pin, self._policy = pin, policy
        self._step = _Step.ROOTS
        self._overrides: list[str] = []
        self._signers: tuple[str, ...] = ()
        self._open: set[str] = set()
        self._guard = threading.Lock()
        self._root: TrustRoot
        self._subject: str
        self._statement: dict[str, Any]
        self._manifest: Manifest
        self._delta: Delta | None = None

    def accept_roots(self, chain: bytes) -> TrustRoot:
        """Step 1. Raises ``trust_invalid``, ``bundle_expired``."""
        with self._advancing(_Step.ROOTS, _Step.PROVENANCE):
            envelopes = parse_chain(chain)
            root = first_root(envelopes[0])
            if root.version != 1:
                raise distrust("the chain of roots does not begin with version 1")
            known = self._pin.root
            if known is None and not self._pin.first_fingerprint:
                raise distrust("nothing says which root of trust to start from: name it with --fingerprint sha256:… (from paper) or --root FILE")
            if (known is None or self._pin.first_fingerprint) and root.fingerprint != self._pin.first_fingerprint:
                raise distrust(f"the first root of trust has the fingerprint sha256:{root.fingerprint}, which is not the pinned one")
            pinned = known is None or _same(known, root)
            for envelope in envelopes[1:]:
                root = next_root(root, envelope)
                pinned = pinned or (known is not None and _same(known, root))
            if not pinned:
                raise distrust(f"the chain of roots in the bundle ends at version {root.version} and does not contain the root that is trusted here")
            self._check_expiry(root.expires_at, f"the root of trust version {root.version}")
            self._root = root
            return root

    def accept_provenance(self, envelope_bytes: bytes) -> None:
        """Step 2. Raises ``bundle_unsigned``, ``bundle_invalid``."""
        with self._advancing(_Step.PROVENANCE, _Step.MANIFEST):
            envelope = parse_envelope(envelope_bytes, PROVENANCE, payload_type=STATEMENT_TYPE)
            role = self._root.roles["bundle"]
            signers = envelope.signers({keyid: self._root.keys[keyid].public for keyid in role.keys})
            if len(signers) < role.threshold:
                raise refusal("bundle_unsigned", f"signed by {len(signers)} of the trusted keys, {role.threshold} are needed")
            self._signers = tuple(sorted(signers))
            self._statement, self._subject = read_statement(envelope)

    def accept_manifest(self, data: bytes) -> Manifest:
        """Step 3. Raises ``bundle_altered``, ``bundle_invalid``."""
        with self._advancing(_Step.MANIFEST, _Step.POLICY):
            if sha256(data).hexdigest() != self._subject:
                raise refusal("bundle_altered", "manifest.json is not the one that was signed")
            self._manifest = parse_manifest(data)
            return self._manifest

    def accept_policy(self) -> None:
        """Step 4. Raises ``bundle_expired``, ``bundle_incompatible``, ``bundle_older``."""
        with self._advancing(_Step.POLICY, _Step.LAYOUT):
            self._check_expiry(self._manifest.expires_at, "the bundle")
            self._check_issue(self._manifest.issued_at)
            wanted, found = self._policy.target, self._manifest.target
            if wanted is not None and wanted != found:
                raise refusal("bundle_incompatible", f"the bundle is for {_platform(found)}, this is {_platform(wanted)}")
            if self._policy.installed is not None:
                self._check_age(self._policy.installed)

    def accept_layout(self, start: int, file_size: int, delta: bytes | None = None) -> Sequence[Member]:
        """Step 5: where the blobs must lie.

        Args:
            start: offset of the first byte after the heads.
            file_size: length of the file in bytes.
            delta: ``delta.json`` of a delta.

        Raises:
            ApplianceError: ``bundle_incomplete`` (too short), ``bundle_invalid`` (too long, or ``delta.json`` malformed).
        """
        with self._advancing(_Step.LAYOUT, _Step.BLOBS):
            self._delta = None if delta is None else parse_delta(delta)
            carried = self._manifest.blobs if self._delta is None else self._delta.carried(self._manifest)
            members = lay_out(start, carried)
            end = members.end + len(END)
            if file_size < end:
                raise refusal("bundle_incomplete", f"the file has {file_size} bytes, {end} are needed: it was cut short")
            if file_size > end:
                raise invalid(f"the file has {file_size - end} bytes more than the bundle")
            self._open = {blob.sha256 for blob in carried}
            return members

    def accept_blob(self, member: Member, digest: str) -> None:
        """Step 6: the content at ``member`` has ``digest`` (hex). May be called from several threads. Raises ``bundle_altered``."""
        with self._guard:
            if self._step is not _Step.BLOBS:
                raise RuntimeError("blobs are accepted in step 6 only")
            if digest != member.name.removeprefix(BLOB_FOLDER):
                self._step = _Step.REFUSED
                raise refusal("bundle_altered", f"{member.name} was changed: its content has the sha256 {digest}")
            if digest not in self._open:
                raise RuntimeError(f"{member.name} was accepted twice")
            self._open.remove(digest)

    def finish(self) -> VerifiedBundle:
        """Step 7. Raises ``bundle_incomplete``."""
        with self._advancing(_Step.BLOBS, _Step.FINISHED):
            if self._open:
                raise refusal("bundle_incomplete", f"{len(self._open)} blobs were not checked")
            return VerifiedBundle(self._manifest, self._root, self._delta, self._signers, tuple(self._overrides), self._statement)

    @contextmanager
    def _advancing(self, at: _Step, then: _Step) -> Iterator[None]:
        if self._step is not at:
            raise RuntimeError(f"step {at.value} was called at step {self._step.value}")
        self._step = _Step.REFUSED
        yield
        self._step = then

    def _check_expiry(self, expires_at: datetime, what: str) -> None:
        if self._policy.now < expires_at:
            return
        reason = f"{what} expired at {format_time(expires_at)}"
        if not self._policy.allow_expired:
            raise refusal("bundle_expired", reason)
        self._overrides.append(reason)

    def _check_issue(self, issued_at: datetime) -> None:
        if issued_at <= self._policy.now + CLOCK_SKEW:
            return
        reason = f"the bundle is from the future ({format_time(issued_at)}): the clock of this machine or of the station is wrong"
        if not self._policy.allow_expired:
            raise refusal("bundle_expired", reason)
        self._overrides.append(reason)

    def _check_age(self, installed: Installed) -> None:
        new = self._manifest
        if new.name != installed.name:
            raise refusal("bundle_incompatible", f"the bundle is {new.name!r}, this site runs {installed.name!r}")
        if new.sequence > installed.sequence or new.digest == installed.manifest_sha256:
            return
        if new.sequence == installed.sequence:
            raise refusal("bundle_older", f"another bundle with the same sequence {new.sequence} is installed; build with a higher --sequence")
        reason = f"the bundle has the sequence {new.sequence}, this site has had {installed.sequence}"
        if not self._policy.allow_older:
            raise refusal("bundle_older", reason)
        self._overrides.append(reason)


def _same(known: TrustRoot, root: TrustRoot) -> bool:
    return known.to_bytes() == root.to_bytes()


def read_statement(envelope: Envelope) -> tuple[dict[str, Any], str]:
    """The in-toto statement and the digest of its one subject. Raises ``bundle_invalid``."""
    statement = canonical_json.decode(envelope.payload, "provenance", limit_bytes=MAX_ENVELOPE_BYTES)
    try:
        if statement["_type"] != STATEMENT or statement["predicateType"] != PROVENANCE_PREDICATE:
            raise ValueError("not an in-toto statement with SLSA provenance")
        (subject,) = statement["subject"]
        if subject["name"] != MANIFEST or set(subject["digest"]) != {"sha256"}:
            raise ValueError("its subject is not manifest.json by sha256")
        return statement, check_digest(subject["digest"]["sha256"])
    except (KeyError, TypeError, ValueError) as exc:
        raise invalid(f"provenance: {exc}") from exc


def _platform(target: Target) -> str:
    return f"{target.os} {target.arch} with Python {target.python}"


def refused(error: ApplianceError) -> bool:
    """Whether ``error`` is a verdict on the bundle (and not, say, a full disk)."""
    return error.code.startswith(("bundle_", "trust_"))
