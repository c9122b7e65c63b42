"""Turns what an operator types about trust into a pin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from appliance.bundle.format.dsse import Envelope, parse_envelope
from appliance.bundle.format.trust_root import PAYLOAD_TYPE, TrustRoot, first_root, next_root, parse_chain
from appliance.bundle.verify import Pin
from appliance.kit.errors import ApplianceError

_FINGERPRINT: Final = re.compile(r"(sha256:)?[0-9a-f]{64}")
_ROOT_BYTES: Final = 2**20
_CODE: Final = "trust_invalid"


def pin_of(fingerprint: str, root: Path | None) -> Pin:
    """The pin; an empty one when neither is given (an installed site has its own).

    Raises:
        ApplianceError: ``invalid_request``, ``not_found``, ``trust_invalid``.
    """
    plain = "".join(fingerprint.split()).lower()
    if plain and not _FINGERPRINT.fullmatch(plain):
        raise ApplianceError("invalid_request", "a fingerprint is sha256: and 64 hex digits", hint="read it again from the paper")
    pinned = None
    if root is not None:
        try:
            with root.open("rb") as file:
                data = file.read(_ROOT_BYTES + 1)
        except OSError as exc:
            raise ApplianceError("not_found", f"cannot read {root}: {exc.strerror}", hint="check the path") from exc
        pinned = (
            _last(parse_chain(data)) if data.startswith(b"[") else _last([parse_envelope(data, root.name, payload_type=PAYLOAD_TYPE, code=_CODE)])
        )
    return Pin(pinned, plain.removeprefix("sha256:"))


def _last(envelopes: list[Envelope]) -> TrustRoot:
    """One root, or the last of a whole chain: each signed by the one before."""
    root = first_root(envelopes[0])
    for envelope in envelopes[1:]:
        root = next_root(root, envelope)
    return root
