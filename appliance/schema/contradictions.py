"""Contradictions that one schema shows by itself. Cheap and sound: what is named here no value can satisfy; much that is impossible is not seen here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

_RANGES: Final = (
    ("minLength", "maxLength", {"string"}),
    ("minItems", "maxItems", {"array"}),
    ("minProperties", "maxProperties", {"object"}),
    ("minimum", "maximum", {"number", "integer"}),
    ("exclusiveMinimum", "maximum", {"number", "integer"}),
    ("minimum", "exclusiveMaximum", {"number", "integer"}),
    ("exclusiveMinimum", "exclusiveMaximum", {"number", "integer"}),
)


def contradiction(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keyword and why, when ``schema`` (valid by its meta-schema) can satisfy no value of the types it names."""
    kinds = _kinds(schema)
    if schema.get("enum") == []:
        return "enum", "it is empty"
    for low, high, of in _RANGES:
        least, most = schema.get(low), schema.get(high)
        if not kinds or kinds - of or not _is_number(least) or not _is_number(most):
            continue
        if least > most or (least == most and ("exclusive" in low or "exclusive" in high)):
            return low, f"{least} leaves nothing below {high} {most}"
    if kinds == {"integer"} and (wrong := _no_integer(schema)) is not None:
        return wrong
    if kinds == {"object"}:
        return _impossible_property(schema)
    return None


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    named = schema.get("type")
    return {named} if isinstance(named, str) else set(named) if isinstance(named, list) else set()


def _no_integer(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    least, most = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if _is_number(least) and _is_number(most) and int(least) == least and most <= least + 1:
        return "exclusiveMinimum", f"there is no integer between {least} and {most}"
    return None


def _impossible_property(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    required = schema.get("required")
    if not isinstance(required, list):
        return None
    properties = schema.get("properties", {})
    for name in required:
        if properties.get(name) is False:
            return "required", f"{name[:100]!r} is required and its schema is false"
        if schema.get("additionalProperties") is False and name not in properties and not schema.get("patternProperties"):
            return "required", f"{name[:100]!r} is required and not among the properties"
    most = schema.get("maxProperties")
    if _is_number(most) and len(set(required)) > most:
        return "required", f"{len(set(required))} properties are required, maxProperties is {most}"
    return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
