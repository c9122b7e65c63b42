"""Old envelopes as today's: the log keeps what was written, readers lift it. Owns decoding; a version above ours is refused, never guessed at.

``UPCASTERS[v]`` turns the plain JSON value of version ``v`` into that of ``v + 1``. Version 1 is the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.events import SCHEMA_VERSION, Envelope

UPCASTERS: Final[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
_CURRENT: Final = msgspec.json.Decoder(Envelope)
_ENCODER: Final = msgspec.json.Encoder()


_PREFIX: Final = b'{"v":%d,' % SCHEMA_VERSION


class _Version(msgspec.Struct):
    v: int


_VERSION: Final = msgspec.json.Decoder(_Version)


def encode_envelope(envelope: Envelope) -> bytes:
    """As it stands in the log: JSON, UTF-8."""
    return _ENCODER.encode(envelope)


def decode_envelope(body: bytes, upcasters: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = UPCASTERS) -> Envelope:
    """The envelope, lifted to the current version.

    Raises:
        ApplianceError: ``event_unknown``: written by a newer release, or damaged.
    """
    try:
        if body.startswith(_PREFIX):  # the common case is decoded once
            return _CURRENT.decode(body)
        version = _VERSION.decode(body).v
        if version == SCHEMA_VERSION:
            return _CURRENT.decode(body)
        if not 0 < version < SCHEMA_VERSION:
            raise _unknown(f"version {version}")
        value: dict[str, Any] = msgspec.json.decode(body)
        for old in range(version, SCHEMA_VERSION):
            value = upcasters[old](value)
        return msgspec.convert(value, Envelope)
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as exc:
        raise _unknown(str(exc)) from exc


def _unknown(what: str) -> ApplianceError:
    hint = "the log was written by a newer release, or it is damaged: install that release, or restore a backup"
    return ApplianceError("event_unknown", f"an entry of the event log cannot be read: {what}", hint=hint)
