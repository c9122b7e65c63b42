"""The report as a signed file, and its verification from the public key alone. Owns the key of the proof, the envelope, the checks of a reader.

Verification, in this order; nothing in the report is believed before step 2:

1. a DSSE envelope in canonical form, of this payload type, within limits
2. it carries the signature of the given key
3. the payload is canonical JSON and has exactly the shape of a report
4. what the report says of itself (total, controls, comparison, verdict) is what its own records give
5. with the raw traces at hand: each has the digest in the report, and reading it again gives the same attempts
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.audit.durable_files import sync_folder, write_once
from appliance.audit.signing import load_private_key, public_pem, raw
from appliance.bundle.format import canonical_json
from appliance.bundle.format.dsse import MAX_ENVELOPE_BYTES, Envelope, Signature, parse_envelope
from appliance.kit.errors import ApplianceError
from appliance.proof import report as rules
from appliance.proof.attempts import find_attempts
from appliance.proof.refusals import REFUSED
from appliance.proof.report_shape import check_shape
from appliance.proof.trace import TraceUnreadableError, read_trace

PAYLOAD_TYPE: Final = "application/vnd.appliance.airgap-proof+json"
PRIVATE_NAME: Final = "proof.key.pem"
PUBLIC_NAME: Final = "proof.pub.pem"
MAX_PAYLOAD_BYTES: Final = 3 * 2**20
_HINT: Final = "do not rely on it; run the proof again: appliance prove-airgap"


def load_or_create_key(keys: Path) -> Ed25519PrivateKey:
    """The proof key of folder ``keys`` (mode 0600, its public part beside it); made when there is none. Raises ``home_invalid``, ``disk_full``."""
    path = keys / PRIVATE_NAME
    if not path.exists():
        write_once(path, Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    key = load_private_key(path)
    write_once(keys / PUBLIC_NAME, public_pem(key.public_key()), mode=0o644)
    return key


def sign_report(report: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """The envelope's bytes."""
    envelope = Envelope(PAYLOAD_TYPE, canonical_json.encode(report))
    keyid = sha256(raw(key.public_key())).hexdigest()
    return Envelope(PAYLOAD_TYPE, envelope.payload, (Signature(keyid, key.sign(envelope.signed_bytes)),)).to_bytes()


def write_report(path: Path, data: bytes) -> None:
    """Put the file in place, whole or not at all; an older report there is replaced. Raises ``disk_full``, ``home_invalid``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    write_once(temporary, data, mode=0o644)
    temporary.replace(path)
    sync_folder(path.parent)


def read_report(path: Path, key: Ed25519PublicKey) -> dict[str, Any]:
    """Verify a report file, steps 1 to 4.

    Returns:
        The report. Whether it is good news is in its ``verdict``.

    Raises:
        ApplianceError: ``not_found``; ``proof_invalid`` saying what does not hold.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise ApplianceError("not_found", f"cannot read {path}: {error.strerror}", hint="name the file that prove-airgap -o wrote") from error
    envelope = parse_envelope(data, path.name, payload_type=PAYLOAD_TYPE, code="proof_invalid")
    public = raw(key)
    if not envelope.signers({sha256(public).hexdigest(): public}):
        raise ApplianceError(
            "proof_invalid", "the report is altered, or not signed by this key", hint="compare the key with the one you were given; " + _HINT
        )
    report = canonical_json.decode(envelope.payload, "report", code="proof_invalid", limit_bytes=MAX_PAYLOAD_BYTES)
    check_shape(report)
    check_sums(report)
    return dict(report)


def check_sums(report: Mapping[str, Any]) -> None:
    """Step 4. Raises ``proof_invalid``."""
    modes = report["modes"]
    if len({entry["mode"] for entry in modes}) != len(modes):
        raise _refused("a mode occurs twice")
    for entry in modes:
        if entry["control"]["holds"] is not rules.control_holds(entry["mode"], entry["control"]):
            raise _refused(f"{entry['mode']}: its control does not come out as it says")
    for what, given, found in (
        ("attempts", report["attempts"], rules.total_attempts(modes)),
        ("starts", report["starts"], rules.start_comparison(modes)),
        ("verdict", report["verdict"], rules.verdict_of(modes)),
    ):
        if given != found:
            raise _refused(f"{what} should be {found}, the report says {given}")


def check_traces(report: Mapping[str, Any], folder: Path) -> None:
    """Step 5, with the traces that ``--keep`` left below ``folder``. Raises ``proof_invalid``, ``not_found``."""
    for entry in report["modes"]:
        path = folder / entry["mode"] / "trace.strace"
        if not path.is_file():
            raise ApplianceError("not_found", f"no raw trace {path}", hint="name the folder that prove-airgap --keep left")
        if trace_facts(path) != {name: entry["trace"][name] for name in ("sha256", "size_bytes")}:
            raise _refused(f"{path} is not the trace of this report")
        try:
            found = find_attempts(read_trace(path))
        except TraceUnreadableError as error:
            raise _refused(f"{path}: {error}") from error
        control = entry["control"]
        canary, others = rules.told_apart(found, control["pids"], control["started_micros"])
        listed = [attempt for attempt in entry["attempts"] if attempt["family"] != REFUSED]
        if [asdict(attempt) for attempt in others] != listed:
            raise _refused(f"{path} has {len(others)} attempts, the report lists {len(listed)}; at least one differs")
        if rules.destinations_of(canary) != control["caught"]:
            raise _refused(f"{path} does not show the control catch what the report says it caught")


def trace_facts(path: Path) -> dict[str, Any]:
    """Digest and size of a raw trace."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "size_bytes": path.stat().st_size}


def _refused(message: str) -> ApplianceError:
    return ApplianceError("proof_invalid", message, hint=_HINT)
