"""What a hostile bundle is: bytes that somebody might put in an operator's way, and the refusal that they must meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256

from appliance.bundle.format.container import MANIFEST, PROVENANCE, ROOT_CHAIN
from appliance.bundle.verify import Installed, Pin, Policy
from appliance.testing.small_bundles import NOW, TARGET, SmallBundle, assemble, small_bundle, small_trust


@dataclass(frozen=True)
class HostileBundle:
    """One case.

    Attributes:
        name: file name without ``.bundle``.
        codes: the refusals that are right for it.
        make: its bytes.
        pin: where the site's trust begins; default: the first root of :func:`honest`.
        policy: what the site asks for.
        about: how the message begins; so that no case is refused for another reason than its own.
    """

    name: str
    codes: tuple[str, ...]
    make: Callable[[], bytes]
    pin: Pin = field(default_factory=lambda: trust().pin)
    policy: Policy = Policy(NOW, TARGET)
    about: str = ""


def trust():
    """The trust of the honest bundle: three keys, two of which must sign."""
    return small_trust(keys=3, threshold=2)


def honest(**settings) -> SmallBundle:
    """The bundle that every case is a corruption of."""
    return small_bundle(trust=settings.pop("trust", None) or trust(), sequence=settings.pop("sequence", 7), **settings)


def installed(bundle: SmallBundle) -> Policy:
    """The policy of a site that runs ``bundle``."""
    manifest = bundle.manifest()
    return Policy(NOW, TARGET, Installed(manifest.name, manifest.sequence, manifest.digest))


def with_manifest(document_bytes: bytes, bundle: SmallBundle | None = None) -> bytes:
    """A file whose manifest is ``document_bytes``, properly signed: the parser itself must refuse it."""
    bundle = bundle or honest()
    blobs = bundle.members()[3:]
    return assemble([(PROVENANCE, bundle.provenance(document_bytes)), *bundle.members()[1:2], (MANIFEST, document_bytes), *blobs])


def with_head(name: str, content: bytes) -> bytes:
    """The honest file with another content of one head."""
    return assemble([(member, content if member == name else data) for member, data in honest().members()])


def with_chain(chain: bytes, provenance: bytes | None = None) -> bytes:
    """The honest file with another chain of roots (and provenance)."""
    changed = {ROOT_CHAIN: chain, **({} if provenance is None else {PROVENANCE: provenance})}
    return assemble([(name, changed.get(name, data)) for name, data in honest().members()])


def policy_cases() -> Iterator[HostileBundle]:
    """Honest bundles at the wrong place or time."""
    here = Policy(NOW, TARGET)
    newer, other = honest(sequence=8), honest(sequence=7, version="0.1.1")
    plain = honest().to_bytes
    yield HostileBundle("replayed-older", ("bundle_older",), plain, policy=installed(newer))
    yield HostileBundle("same-sequence-other-content", ("bundle_older",), plain, policy=installed(other))
    yield HostileBundle("other-name", ("bundle_incompatible",), plain, policy=replace(here, installed=Installed("site", 1, "0" * 64)))
    yield HostileBundle("other-architecture", ("bundle_incompatible",), plain, policy=replace(here, target=replace(TARGET, arch="aarch64")))
    yield HostileBundle("other-python", ("bundle_incompatible",), plain, policy=replace(here, target=replace(TARGET, python="3.12")))
    yield HostileBundle("other-system", ("bundle_incompatible",), plain, policy=replace(here, target=replace(TARGET, os="freebsd")))
    yield HostileBundle("expired-bundle", ("bundle_expired",), honest(expires_at=NOW).to_bytes)
    late = small_trust(keys=3, threshold=2, expires_at=NOW - timedelta(seconds=1))
    yield HostileBundle("expired-root", ("bundle_expired",), honest(trust=late).to_bytes, pin=late.pin)
    yield HostileBundle("pin-of-another", ("trust_invalid",), plain, pin=Pin(first_fingerprint=sha256(b"other").hexdigest()))
    yield HostileBundle("no-pin", ("trust_invalid",), plain, pin=Pin())
