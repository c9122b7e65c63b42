"""A schema as a choice of flat ones: references followed, ``allOf`` merged, ``anyOf``/``oneOf`` multiplied out. Pure.

Flat = no reference and no applicator to the same value. What cannot be expressed so is dropped and its keyword noted as unenforced: the result may allow
more than the schema, never less of what it must allow; whoever generates by it validates afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.schema.references import ABSENT, References

MOST_CHOICES: Final = 64
_MOST_STEPS: Final = 6_000
DROPPED: Final = frozenset({"not", "if", "dependentSchemas", "dependentRequired", "dependencies", "contains", "unevaluatedItems",
    "$dynamicRef", "$recursiveRef", "additionalItems"})  # fmt: skip
_LEAST: Final = frozenset({"minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"})
_MOST: Final = frozenset({"maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum"})
TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")

Flat = dict[str, Any]


class TooManyChoicesError(Exception):
    """Multiplying out would take more than ``MOST_CHOICES`` alternatives, or ``_MOST_STEPS`` steps."""


@dataclass(frozen=True, slots=True)
class Scoped:
    """A schema, and the references that were followed on the way to it (with repetitions: recursion is counted)."""

    schema: object
    trail: tuple[str, ...] = ()


@dataclass(slots=True)
class Flattening:
    """One schema being flattened; ``unenforced`` collects keywords.

    Attributes:
        references: of the root.
        rounds: how often a reference may lead into itself; beyond, that alternative is left out.
        steps: schemas that were looked at so far.
    """

    references: References
    rounds: int
    unenforced: set[str] = field(default_factory=set)
    steps: int = 0

    def choices(self, scoped: Scoped) -> list[Flat]:
        """Flat alternatives; [] = nothing satisfies it (at this depth). Values of child schemas are ``Scoped`` lists that must all hold."""
        schema, trail = scoped.schema, scoped.trail
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise TooManyChoicesError
        if schema is True:
            return [{}]
        if not isinstance(schema, Mapping):
            return []
        result = [self._own(schema, trail)]
        if "$ref" in schema:
            result = _product(result, self._referred(schema["$ref"], trail))
        for part in schema.get("allOf", ()):
            result = _product(result, self.choices(Scoped(part, trail)))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                result = self._alternatives(keyword, schema[keyword], trail, result)
        return result

    def _alternatives(self, keyword: str, parts: list[object], trail: tuple[str, ...], others: list[Flat]) -> list[Flat]:
        branches = [self.choices(Scoped(part, trail)) for part in parts]
        if keyword == "oneOf" and not _disjoint(branches):
            self.unenforced.add("oneOf")
        return _product(others, [flat for branch in branches for flat in branch])

    def _referred(self, reference: object, trail: tuple[str, ...]) -> list[Flat]:
        target = self.references.target(reference)
        if target is ABSENT:
            self.unenforced.add("$ref")
            return [{}]
        if trail.count(str(reference)) > self.rounds:
            return []
        return self.choices(Scoped(target, (*trail, str(reference))))

    def _own(self, schema: Mapping[str, Any], trail: tuple[str, ...]) -> Flat:
        flat: Flat = {}
        for keyword, value in schema.items():
            if keyword in DROPPED:
                self.unenforced.add(keyword)
            elif keyword == "uniqueItems":
                flat[keyword] = bool(value)
            elif keyword == "type":
                flat["types"] = frozenset([value] if isinstance(value, str) else value)
            elif keyword in {"properties", "patternProperties"}:
                flat[keyword] = {name: [Scoped(part, trail)] for name, part in value.items()}
            elif keyword in {"additionalProperties", "unevaluatedProperties", "propertyNames"} or (keyword == "items" and not isinstance(value, list)):
                flat[keyword] = [Scoped(value, trail)]
            elif keyword == "items":
                self.unenforced.add("items")
            elif keyword == "prefixItems":
                flat[keyword] = [[Scoped(part, trail)] for part in value]
            elif keyword == "required":
                flat[keyword] = list(dict.fromkeys(value)) if isinstance(value, list) else []
            elif keyword in {"pattern", "format", "multipleOf"}:
                flat[keyword] = [value]
            elif keyword in _LEAST | _MOST and isinstance(value, bool):
                self.unenforced.add(keyword)  # draft 4
            elif keyword in {"enum", "const"}:
                flat["enum"] = list(value) if keyword == "enum" else [value]
            elif keyword in _LEAST | _MOST:
                flat[keyword] = value
        return flat


def _product(left: list[Flat], right: list[Flat]) -> list[Flat]:
    if len(left) * len(right) > MOST_CHOICES:
        raise TooManyChoicesError
    merged = [both(a, b) for a in left for b in right]
    return [flat for flat in merged if flat is not None]


def both(a: Flat, b: Flat) -> Flat | None:
    """The flat schema that demands both; None when they plainly exclude each other."""
    result: Flat = {**a, **b}
    for keyword in a.keys() & b.keys():
        x, y = a[keyword], b[keyword]
        if keyword == "types":
            kinds = (x & y) | ({"integer"} if ("integer" in x and "number" in y) or ("number" in x and "integer" in y) else set())
            if not kinds:
                return None
            result[keyword] = frozenset(kinds)
        elif keyword in _LEAST:
            result[keyword] = max(x, y)
        elif keyword in _MOST:
            result[keyword] = min(x, y)
        elif keyword == "uniqueItems":
            result[keyword] = x or y
        elif keyword == "required":
            result[keyword] = list(dict.fromkeys([*x, *y]))
        elif keyword == "enum":
            result[keyword] = [value for value in x if any(type(value) is type(other) and value == other for other in y)]
            if not result[keyword]:
                return None
        elif keyword in {"pattern", "format", "multipleOf"}:
            result[keyword] = list(dict.fromkeys([*x, *y]))
        elif keyword in {"additionalProperties", "unevaluatedProperties", "propertyNames", "items"}:
            result[keyword] = [*x, *y]
    _merge_arrays(a, b, result)
    _merge_objects(a, b, result)
    return result


def _merge_arrays(a: Flat, b: Flat, result: Flat) -> None:
    if "prefixItems" not in a and "prefixItems" not in b:
        return
    x, y = a.get("prefixItems", []), b.get("prefixItems", [])
    result["prefixItems"] = [
        [*(x[i] if i < len(x) else a.get("items", [])), *(y[i] if i < len(y) else b.get("items", []))] for i in range(max(len(x), len(y)))
    ]


def _merge_objects(a: Flat, b: Flat, result: Flat) -> None:
    if not ({"properties", "patternProperties"} & (a.keys() | b.keys())):
        return
    x, y = a.get("properties", {}), b.get("properties", {})
    result["properties"] = {name: [*x.get(name, _others(a, name)), *y.get(name, _others(b, name))] for name in dict.fromkeys([*x, *y])}
    patterns = {**a.get("patternProperties", {})}
    for pattern, parts in b.get("patternProperties", {}).items():
        patterns[pattern] = [*patterns.get(pattern, []), *parts]
    if patterns:
        result["patternProperties"] = patterns


def _others(flat: Flat, name: str) -> list[Scoped]:
    from appliance.schema.schema_keywords import matches

    matched = [part for pattern, parts in flat.get("patternProperties", {}).items() if matches(pattern, name) for part in parts]
    return matched or flat.get("additionalProperties", [])


def _disjoint(branches: list[list[Flat]]) -> bool:
    return all(_apart(a, b) for i, one in enumerate(branches) for other in branches[i + 1 :] for a in one for b in other)


def _apart(a: Flat, b: Flat) -> bool:
    """Whether no value satisfies both, as far as can be seen: other types, other constants, or a required property that tells them apart."""
    if both(a, b) is None:
        return True
    kinds = [flat.get("types") for flat in (a, b)]
    if kinds != [frozenset({"object"})] * 2:
        return False
    for name in set(a.get("required", ())) & set(b.get("required", ())):
        x, y = _constants(a, name), _constants(b, name)
        if x is not None and y is not None and not (x & y):
            return True
    return False


def _constants(flat: Flat, name: str) -> set[str] | None:
    for part in flat.get("properties", {}).get(name, ()):
        if isinstance(part.schema, Mapping):
            values = part.schema.get("enum", [part.schema["const"]] if "const" in part.schema else None)
            if values is not None and all(isinstance(value, str) for value in values):
                return set(values)
    return None
