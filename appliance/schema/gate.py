"""The gate: a schema that comes from a caller is admitted whole or refused with the keyword and the place, before anything is generated for it.

``schema_invalid``: it is no JSON Schema, or nothing can satisfy it (seen cheaply: impossible bounds, an empty enum, a required property that may not be,
recursion without end), or it is too large or too deep. ``schema_unsupported``: a keyword, format, pattern, dialect or reference that would otherwise be
ignored. What is admitted is checked completely by ``SchemaChecker``'s engine: bounded steps and time, patterns in linear time.

Does not own: how a model is held to the schema (``grammar``, ``answers``).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.schema import schema_check
from appliance.schema.contradictions import contradiction
from appliance.schema.formats import HINTS, PATTERNS
from appliance.schema.places import KNOWN, Place, places
from appliance.schema.references import astray
from appliance.schema.schema_check import SchemaLimits

Formats = Literal["assert", "annotate"]
_UNSUPPORTED: Final = frozenset({"$dynamicRef", "$recursiveRef", "$vocabulary"})
_SHOWN: Final = 100
_LIMITS: Final = SchemaLimits(kept=0, seconds=5.0)  # steps bound the work; seconds only catch what steps do not, on machines under load
_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a value does not satisfy the schema: JSON pointer into the value, the keyword, and why in words."""

    pointer: str
    keyword: str
    reason: str

    def __str__(self) -> str:
        return f"at {self.pointer or '/'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class AdmittedSchema:
    """A schema that passed the gate. Immutable; may be kept and shared."""

    schema: Mapping[str, Any] | bool
    digest: str
    _validator: Any
    _limits: SchemaLimits

    def errors(self, value: object, most: int = 8) -> tuple[Violation, ...]:
        """What is wrong with ``value``, at most ``most`` entries; () = it satisfies the schema.

        Raises:
            ApplianceError: ``schema_unsatisfied`` when the check runs out of steps or time: never accepted.
        """
        found = schema_check.errors_of(self._validator, value, self._limits, "schema_unsatisfied", most)
        return tuple(Violation(*error) for error in found)

    def part_accepts(self, part: object, value: object) -> bool:
        """Whether ``part``, a schema from within this one, is satisfied by ``value``."""
        return not schema_check.errors_of(self._validator.evolve(schema=part), value, self._limits, "schema_unsatisfied", 1)

    def check(self, value: object) -> None:
        """Raise ``schema_unsatisfied`` with the first error unless ``value`` satisfies the schema."""
        if errors := self.errors(value, 1):
            raise ApplianceError("schema_unsatisfied", f"the data does not fit the schema {errors[0]}", hint="see the schema", path=errors[0].pointer)


_lock: Final = threading.Lock()  # plans are made in threads
_kept: OrderedDict[tuple[bytes, Formats, SchemaLimits], AdmittedSchema] = OrderedDict()


def admit(schema: Mapping[str, Any] | bool, *, formats: Formats = "assert", limits: SchemaLimits = _LIMITS) -> AdmittedSchema:
    """Let a schema in.

    Args:
        schema: JSON Schema; draft 2020-12 unless ``$schema`` says otherwise.
        formats: whether ``format`` is held to (answers) or says something only (the specification's default).
        limits: bounds of the schema and of each later check.

    Raises:
        ApplianceError: ``schema_invalid`` or ``schema_unsupported``, naming keyword and JSON pointer (also in the context).
    """
    encoded = _encoded(schema, limits)
    key = (encoded, formats, limits)
    with _lock:
        if (ready := _kept.get(key)) is not None:
            _kept.move_to_end(key)
            return ready
    own = schema_check.decoded(encoded, "schema_invalid", "the schema", limits.depth)
    _refuse_costly(own)
    for place in places(own):
        _refuse_unsupported(place, formats)
    admitted = _compiled(own, encoded, formats, limits)
    for place in places(own):
        if (wrong := contradiction(place.schema)) is not None:
            raise refusal("schema_invalid", place.pointer, *wrong)
    if own is False:
        raise refusal("schema_invalid", "", "false", "nothing satisfies it")
    if (end := astray(own)) is not None:
        raise refusal("schema_invalid", *end)
    with _lock:
        _kept[key] = admitted
        if len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return admitted


def refusal(code: str, pointer: str, keyword: str, why: str) -> ApplianceError:
    """The error that names keyword and place."""
    return ApplianceError(
        code, f"the schema's {keyword!r} at {pointer or '/'}: {why}"[:500], hint="change the schema (docs/schemas.md lists what is supported)",
        keyword=keyword, pointer=pointer,
    )  # fmt: skip


def _encoded(schema: object, limits: SchemaLimits) -> bytes:
    if not isinstance(schema, Mapping | bool):
        raise ApplianceError("schema_invalid", "the schema is neither an object nor true or false", hint="see json-schema.org, draft 2020-12")
    try:
        encoded = msgspec.json.encode(schema)
    except (TypeError, ValueError, RecursionError, OverflowError) as exc:
        raise ApplianceError("schema_invalid", f"the schema is not JSON: {str(exc)[:_SHOWN]}", hint="send plain JSON") from exc
    if len(encoded) > limits.schema_bytes:
        raise ApplianceError("schema_invalid", f"the schema has {len(encoded):,} bytes", hint=f"at most {limits.schema_bytes:,}")
    return encoded


def _refuse_unsupported(place: Place, formats: Formats) -> None:
    for keyword, value in place.schema.items():
        if keyword in _UNSUPPORTED or (keyword not in KNOWN and not keyword.startswith("x-")):
            raise refusal("schema_unsupported", place.pointer, keyword, "this keyword is not supported")
        if keyword == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise refusal("schema_unsupported", place.pointer, keyword, f"it leads out of the schema, to {value[:_SHOWN]!r}")
        if keyword in {"pattern", "patternProperties"}:
            _refuse_patterns(place, keyword, value)
        if keyword == "format" and formats == "assert" and isinstance(value, str) and value not in PATTERNS and value not in HINTS:
            raise refusal(
                "schema_unsupported", place.pointer, keyword, f"the format {value[:_SHOWN]!r} is not supported; there are {', '.join(PATTERNS)}"
            )


def _refuse_costly(own: Any) -> None:
    try:
        schema_check.refuse_costly(own)
    except ApplianceError as exc:
        raise refusal("schema_unsupported", "", "pattern", f"{exc.message} ({exc.hint})") from exc


def _refuse_patterns(place: Place, keyword: str, value: object) -> None:
    from appliance.schema.schema_keywords import compiled

    for pattern in [value] if isinstance(value, str) else value if isinstance(value, Mapping) else ():
        try:
            compiled(pattern)
        except ApplianceError as exc:
            raise refusal("schema_unsupported", place.pointer, keyword, f"{exc.message} ({exc.hint})") from exc


def _compiled(own: Any, encoded: bytes, formats: Formats, limits: SchemaLimits) -> AdmittedSchema:
    validator = schema_check.prepared(own, limits, formats=formats == "assert")
    return AdmittedSchema(own, hashlib.sha256(encoded).hexdigest(), validator, limits)
