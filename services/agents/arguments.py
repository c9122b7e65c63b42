"""Arguments of a call as the model wrote them → checked values. Owns bounds of size, depth and numbers, and what the model is told when they do not fit."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.schema.schema_check import SchemaChecker, SchemaLimits
from services.agents.dependencies import MAX_DEPTH

MAX_ARGUMENT_BYTES: Final = 64 * 1024
_LARGEST_NUMBER: Final = 2**63
_LIMITS: Final = SchemaLimits(instance_bytes=MAX_ARGUMENT_BYTES, depth=MAX_DEPTH, steps=20_000, seconds=0.25)


class ArgumentChecker:
    """Reads and checks arguments; schemas are kept ready."""

    def __init__(self) -> None:
        self._checker = SchemaChecker(_LIMITS)

    def read(self, text: str) -> dict[str, Any]:
        """The arguments of a call; "" is an empty object.

        Raises:
            ApplianceError: ``too_large`` or ``invalid_request``, worded for the model.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_ARGUMENT_BYTES:
            raise ApplianceError("too_large", f"the arguments have {len(data):,} bytes", hint=f"at most {MAX_ARGUMENT_BYTES:,}")
        try:
            value = msgspec.json.decode(data or b"{}")
        except (msgspec.DecodeError, RecursionError, ValueError) as exc:
            raise ApplianceError("invalid_request", f"the arguments are not JSON: {str(exc)[:200]}", hint="write one JSON object") from exc
        if not isinstance(value, dict):
            raise ApplianceError("invalid_request", "the arguments are not a JSON object", hint="write one JSON object")
        _bounded(value)
        return value

    def check(self, schema: bytes, value: dict[str, Any]) -> bytes:
        """Canonical bytes of ``value`` when it satisfies ``schema``.

        Raises:
            ApplianceError: ``invalid_request`` naming the first place that does not fit, ``too_large``, or ``schema_invalid`` (the tool's own fault).
        """
        data = msgspec.json.encode(value, order="sorted")
        try:
            self._checker.check_input(schema, data)
        except ApplianceError as error:
            if error.code == "too_large":
                raise
            if "path" not in error.context and "JSON" not in error.message and "deep" not in error.message:
                raise ApplianceError("schema_invalid", f"the tool's schema cannot be used: {error.message}", hint="tell the operator") from error
            raise ApplianceError(
                "invalid_request",
                error.message.replace("the input does not fit its schema", "the arguments do not fit the schema"),
                hint="correct them and call again",
            ) from error
        return data

    def check_schema(self, schema: bytes) -> None:
        """Raise ``schema_invalid`` for one that could not be used later."""
        try:
            self._checker.check_schema(schema)
        except ApplianceError as error:
            raise ApplianceError("schema_invalid", error.message, hint=error.hint) from error


def digest_of(name: str, canonical: bytes) -> str:
    """What an approval is bound to, and what stands in the audit log: tool and arguments, 32 hex digits."""
    return hashlib.sha256(name.encode() + b"\0" + canonical).hexdigest()[:32]


def _bounded(value: dict[str, Any]) -> None:
    """Depth and numbers, before anything recursive looks at them."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        following: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                following.extend(one.values())
            elif isinstance(one, list):
                following.extend(one)
            elif not _is_ordinary(one):
                raise ApplianceError("invalid_request", "a number is too large", hint="use numbers of ordinary size")
        level = following
        if not level:
            return
    raise ApplianceError("invalid_request", "the arguments are nested too deeply", hint=f"at most {MAX_DEPTH} levels")


def _is_ordinary(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -_LARGEST_NUMBER <= value < _LARGEST_NUMBER
