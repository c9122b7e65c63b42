"""Changes of a root of trust: who is added and removed, and how keys on several machines sign the next root one after another.

Owns: the next root as a document, and the file ``next-root.dsse.json`` in which a root waits for its signatures. Does not own: keys and
the chain on the disk (``keys``), the rule when a root may follow another (``format.trust_root.next_root``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from appliance.bundle.format.dsse import Envelope, parse_envelope
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, Role, TrustedKey, TrustRoot, next_root, parse_root
from appliance.bundle.keys import DEFAULT_VALID_DAYS, Station, replace_file
from appliance.kit.errors import ApplianceError

PROPOSAL_NAME: Final = "next-root.dsse.json"


@dataclass(frozen=True, slots=True)
class RootChange:
    """What is different in the next root.

    Attributes:
        role: the role that changes: ``bundle``, ``models`` or ``root``.
        add: public keys that join it.
        remove: ids (or beginnings of ids of at least 8 digits) of keys that leave it.
        threshold: new threshold; None: as it is.
        valid_days: until the next root expires.
    """

    role: str
    add: tuple[TrustedKey, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None
    valid_days: int = DEFAULT_VALID_DAYS


def rotate(station: Station, change: RootChange, *, now: datetime | None = None) -> tuple[Station, Envelope]:
    """Make the next root and sign it with what is here.

    Returns:
        The station, changed when the signatures suffice, and the envelope; when they do not, it waits in ``next-root.dsse.json``.

    Raises:
        ApplianceError: ``invalid_request`` for a change that makes no sense, ``trust_invalid`` when no key here may sign.
    """
    payload = _next_document(station.root, change, now or datetime.now(UTC)).to_bytes()
    try:
        parse_root(payload)
    except ApplianceError as error:
        raise ApplianceError("invalid_request", error.message, hint="appliance trust show; appliance trust rotate --help") from error
    return sign_next(station, Envelope(PAYLOAD_TYPE, payload))


def sign_next(station: Station, envelope: Envelope) -> tuple[Station, Envelope]:
    """Add this machine's signatures to a root that waits for them, and take it over when they suffice. Raises ``trust_invalid``."""
    root = parse_root(envelope.payload)
    if root.version != station.root.version + 1:
        raise ApplianceError(
            "trust_invalid", f"the root has version {root.version}, this station has {station.root.version}", hint="appliance trust show"
        )
    may_sign = sorted({*station.root.roles["root"].keys, *root.roles["root"].keys})
    signed = station.ring.sign(envelope, may_sign)
    if is_complete(station.root, signed):
        station = station.with_chain([*station.chain, signed])
        (station.folder / PROPOSAL_NAME).unlink(missing_ok=True)
    else:
        replace_file(station.folder / PROPOSAL_NAME, signed.to_bytes())
    return station, signed


def read_proposal(path: Path) -> Envelope:
    """Read a root that waits for signatures. Raises ``trust_invalid``."""
    try:
        with path.open("rb") as file:
            data = file.read(2**20)
    except OSError as error:
        raise ApplianceError("trust_invalid", f"cannot read {path}: {error.strerror}", hint="appliance trust rotate makes it") from error
    return parse_envelope(data, path.name, payload_type=PAYLOAD_TYPE, code="trust_invalid")


def is_complete(current: TrustRoot, envelope: Envelope) -> bool:
    """Whether ``envelope`` may follow ``current`` with the signatures it has."""
    try:
        next_root(current, envelope)
    except ApplianceError:
        return False
    return True


def _next_document(root: TrustRoot, change: RootChange, now: datetime) -> TrustRoot:
    if change.role not in root.roles:
        raise ApplianceError("invalid_request", f"there is no role {change.role!r}", hint=f"roles: {', '.join(sorted(root.roles))}")
    old = root.roles[change.role]
    leaving = {_one_of(old, keyid) for keyid in change.remove}
    members = sorted({*(keyid for keyid in old.keys if keyid not in leaving), *(key.keyid for key in change.add)})
    roles = {**root.roles, change.role: Role(tuple(members), old.threshold if change.threshold is None else change.threshold)}
    described = {**root.keys, **{key.keyid: key for key in change.add}}
    used = {keyid for role in roles.values() for keyid in role.keys}
    start = now.replace(microsecond=0)
    return replace(
        root,
        version=root.version + 1,
        issued_at=start,
        expires_at=start + timedelta(days=change.valid_days),
        keys={keyid: key for keyid, key in described.items() if keyid in used},
        roles=roles,
    )


def _one_of(role: Role, beginning: str) -> str:
    found = [keyid for keyid in role.keys if len(beginning) >= 8 and keyid.startswith(beginning)]
    if len(found) != 1:
        raise ApplianceError("invalid_request", f"{beginning!r} names {len(found)} keys of this role", hint="give at least 8 digits of the key id")
    return found[0]
