"""Checks a JSON value against the part of JSON Schema that the box's own OpenAPI document uses. A keyword that it does not know is an error, not a pass.

Owns just that subset, so that the box needs no further package at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_DESCRIBING: Final = frozenset({"title", "description", "default", "examples", "example", "format", "deprecated", "discriminator", "$ref"})
_MAX_DEPTH: Final = 40


def violations(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], where: str = "answer", depth: int = 0) -> list[str]:
    """What is wrong with ``value``, by place; empty when it is valid. ``$ref`` is looked up in ``document``."""
    if depth > _MAX_DEPTH:
        return [f"{where}: nested too deeply"]
    if "$ref" in schema:
        return violations(value, _referred(schema["$ref"], document), document, where, depth + 1)
    if "anyOf" in schema:
        tries = [violations(value, branch, document, where, depth + 1) for branch in schema["anyOf"]]
        return [] if any(not found for found in tries) else [f"{where}: fits none of {len(tries)} alternatives: {tries[0][0]}"]
    found = [f"{where}: unknown keyword {key!r} in the schema" for key in schema if key not in _DESCRIBING and key not in _KEYWORDS]
    found += [f"{where}: {problem}" for key, check in _SIMPLE.items() if key in schema and (problem := check(value, schema[key]))]
    if isinstance(value, dict):
        found += _object(value, schema, document, where, depth)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            found += violations(item, schema["items"], document, f"{where}[{index}]", depth + 1)
    return found


def _object(value: dict[str, Any], schema: Mapping[str, Any], document: Mapping[str, Any], where: str, depth: int) -> list[str]:
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
    found = [f"{where}: lacks {name!r}" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        if name in properties:
            found += violations(item, properties[name], document, f"{where}.{name}", depth + 1)
        elif isinstance(extra, dict):
            found += violations(item, extra, document, f"{where}.{name}", depth + 1)
        elif extra is False:
            found.append(f"{where}: has {name!r}, which the schema does not know")
    return found


def _referred(reference: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    place: Any = document
    for part in reference.removeprefix("#/").split("/"):
        place = place[part]
    return place  # type: ignore[no-any-return]


def _type(value: Any, wanted: Any) -> str:
    fits = isinstance(value, _TYPES[wanted]) and not (isinstance(value, bool) and wanted in {"integer", "number"})
    return "" if fits else f"is {type(value).__name__}, not {wanted}"


def _bound(fits: Callable[[Any, Any], bool], text: str) -> Callable[[Any, Any], str]:
    return lambda value, limit: "" if fits(value, limit) else f"{text} {limit}"


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | dict) else 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
}  # fmt: skip
_SIMPLE: Final[Mapping[str, Callable[[Any, Any], str]]] = {
    "type": _type,
    "const": _bound(lambda value, limit: bool(value == limit), "is not"),
    "enum": _bound(lambda value, limit: value in limit, "is none of"),
    "minLength": _bound(lambda value, limit: not isinstance(value, str) or _size(value) >= limit, "is shorter than"),
    "maxLength": _bound(lambda value, limit: not isinstance(value, str) or _size(value) <= limit, "is longer than"),
    "minItems": _bound(lambda value, limit: not isinstance(value, list) or _size(value) >= limit, "has fewer items than"),
    "maxItems": _bound(lambda value, limit: not isinstance(value, list) or _size(value) <= limit, "has more items than"),
    "minimum": _bound(lambda value, limit: not _number(value) or value >= limit, "is below"),
    "maximum": _bound(lambda value, limit: not _number(value) or value <= limit, "is above"),
}
_KEYWORDS: Final = frozenset({*_SIMPLE, "properties", "required", "additionalProperties", "items", "anyOf"})
