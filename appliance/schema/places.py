"""Where schemas stand inside a schema, and what its keywords are. Pure tables and one walk; data in ``enum``, ``const`` and ``default`` is not walked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
SINGLE: Final = frozenset({
    "items", "additionalProperties", "propertyNames", "not", "if", "then", "else", "contains", "unevaluatedItems", "unevaluatedProperties",
    "additionalItems",
})  # fmt: skip
IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
"""Applied to the same value as the schema that holds them."""

ASSERTIONS: Final = frozenset({
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern",
    "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties", "required", "dependentRequired",
    "dependencies", "format",
})  # fmt: skip
CORE: Final = frozenset({"$schema", "$id", "id", "$anchor", "$ref", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$comment"})
ANNOTATIONS: Final = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType",
    "contentSchema", "discriminator",
})  # fmt: skip
"""Say something to people; never decide validity (``discriminator`` is OpenAPI's hint beside a oneOf that decides)."""

KNOWN: Final = MAPS | LISTS | SINGLE | ASSERTIONS | CORE | ANNOTATIONS


@dataclass(frozen=True, slots=True)
class Place:
    """A schema within a schema: its JSON pointer (RFC 6901) and itself."""

    pointer: str
    schema: Mapping[str, Any]


def places(schema: object) -> Iterator[Place]:
    """Every object that stands where a schema stands, outermost first. What is malformed is passed over: the meta-schema names it."""
    stack: list[tuple[str, object]] = [("", schema)]
    while stack:
        pointer, found = stack.pop()
        if isinstance(found, Mapping):
            yield Place(pointer, found)
            stack.extend(reversed(list(parts(found, pointer))))


def parts(schema: Mapping[str, Any], pointer: str = "") -> Iterator[tuple[str, object]]:
    """The schemas directly inside: pointer and schema."""
    for keyword, value in schema.items():
        here = f"{pointer}/{escaped(str(keyword))}"
        if keyword in MAPS and isinstance(value, Mapping):
            for name, part in value.items():
                yield f"{here}/{escaped(str(name))}", part
        elif (keyword in LISTS or keyword == "items") and isinstance(value, list):
            for number, part in enumerate(value):
                yield f"{here}/{number}", part
        elif keyword in SINGLE:
            yield here, value


def escaped(name: str) -> str:
    """One step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
