"""A schema that a grammar engine can enforce token by token, made from one that it cannot: self-contained, and every value of it is bounded.

Narrower is right (an answer need not use every freedom), wider is named: references are written out (recursion to a depth), strings, arrays, maps and
numbers get an upper bound, objects that list their properties are closed, formats become patterns. What cannot be expressed is listed in ``unenforced``
and must be validated afterwards. So generation ends whatever the model likes, even a model with random weights.

Does not own: the engine's text form (``grammar``), what happens when an answer is cut (``closing``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from appliance.schema.flattening import MOST_CHOICES, TYPES, Flat, Flattening, Scoped, TooManyChoicesError, both
from appliance.schema.formats import PATTERNS
from appliance.schema.gate import AdmittedSchema
from appliance.schema.places import ANNOTATIONS, CORE, places
from appliance.schema.references import References

_KEY: Final = r"^[\p{L}\p{N}_ .:/-]{1,64}$"
_MOST_NODES: Final = 1_500
_ENUM_ONLY: Final = ANNOTATIONS | {"enum"}
_FREE_DEPTH: Final = 4  # at 8 llama.cpp took a second for each token of free JSON
_FREE_ORDER: Final = ("string", "number", "boolean", "null", "array", "object")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds where the schema names none.

    Attributes:
        string_characters: of a string.
        array_items: of an array.
        map_entries: of properties that the schema does not name.
        recursion: how often a reference may lead into itself.
        number: largest magnitude of a number; it has at most six decimals (binary fractions of more do not survive a turn through JSON everywhere).
    """

    string_characters: int = 4_096
    array_items: int = 64
    map_entries: int = 32
    recursion: int = 4
    number: int = 10**15


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What the engine is given, and which keywords it does not enforce (sorted)."""

    schema: dict[str, Any]
    unenforced: tuple[str, ...]


class _TooLargeError(Exception):
    """More than ``_MOST_NODES`` when written out."""


def narrowed(admitted: AdmittedSchema, bounds: Bounds | None = None) -> Narrowed:
    """Write the schema out within ``bounds``. One that cannot be written out at all becomes any JSON, with all its keywords unenforced."""
    bounds = bounds or Bounds()
    references = References(admitted.schema)
    for recursion in sorted({bounds.recursion, 1, 0}, reverse=True):
        work = _Narrowing(Flattening(references, recursion), bounds, admitted.part_accepts)
        try:
            schema = work.node([Scoped(admitted.schema)])
        except (TooManyChoicesError, _TooLargeError, RecursionError):
            continue
        if isinstance(schema, dict):
            return Narrowed(work.whole(schema), tuple(sorted(work.unenforced)))
    work = _Narrowing(Flattening(references, 0), bounds, admitted.part_accepts)
    free = work.node([])
    return Narrowed(work.whole(free if isinstance(free, dict) else {}), tuple(sorted(keywords_of(admitted.schema))))


class _Narrowing:
    def __init__(self, flattening: Flattening, bounds: Bounds, accepts: Callable[[object, object], bool]) -> None:
        self._flattening = flattening
        self._bounds = bounds
        self._accepts = accepts
        self._nodes = 0
        self.definitions: dict[str, dict[str, Any]] = {}

    @property
    def unenforced(self) -> set[str]:
        return self._flattening.unenforced

    def node(self, parts: Sequence[Scoped], free: int = 0) -> dict[str, Any] | bool:
        """One value that all ``parts`` describe; False = there is none."""
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise _TooLargeError
        return self._chosen(parts, free) if parts or not free else self._any(free)

    def whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with the definitions that it refers to."""
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    def _any(self, free: int) -> dict[str, Any]:
        """Any JSON that nests ``_FREE_DEPTH - free`` levels deeper; each level is written once."""
        name = f"any-{free}"
        if name not in self.definitions:
            self.definitions[name] = {}
            made = self._chosen((), free)
            self.definitions[name] = made if isinstance(made, dict) else {}
        return {"$ref": f"#/$defs/{name}"}

    def _chosen(self, parts: Sequence[Scoped], free: int) -> dict[str, Any] | bool:
        flats: list[Flat] = [{}]
        for part in parts:
            choices = self._flattening.choices(part)
            if len(flats) * len(choices) > MOST_CHOICES:
                raise TooManyChoicesError
            flats = [flat for a in flats for b in choices if (flat := both(a, b)) is not None]
        pieces: dict[str, dict[str, Any]] = {}
        for flat in flats:
            for piece in self._pieces(flat, parts, free):
                pieces.setdefault(json.dumps(piece), piece)
        found = list(pieces.values())
        return False if not found else found[0] if len(found) == 1 else {"anyOf": found}

    def _pieces(self, flat: Flat, parts: Sequence[Scoped], free: int) -> list[dict[str, Any]]:
        if "enum" in flat:
            plain = len(parts) == 1 and isinstance(parts[0].schema, Mapping) and _ENUM_ONLY.issuperset(parts[0].schema)
            values = flat["enum"] if plain else [value for value in flat["enum"] if all(self._accepts(part.schema, value) for part in parts)]
            return [{"enum": values}] if values else []
        types = flat.get("types", frozenset(_FREE_ORDER))
        order = [kind for kind in (TYPES if "types" in flat else _FREE_ORDER) if kind in types]
        if "number" in types and "integer" in order:
            order.remove("integer")
        made = (self._typed(kind, flat, free) for kind in order if free < _FREE_DEPTH or kind not in {"array", "object"})
        return [piece for piece in made if piece is not None]

    def _typed(self, kind: str, flat: Flat, free: int) -> dict[str, Any] | None:
        if kind == "object":
            return self._object(flat, free)
        if kind == "array":
            return self._array(flat, free)
        if kind == "string":
            return self._string(flat)
        if kind in {"number", "integer"}:
            return self._number(kind, flat)
        return {"type": kind}

    def _string(self, flat: Flat) -> dict[str, Any] | None:
        least = int(flat.get("minLength", 0))
        most = min(int(flat.get("maxLength", self._bounds.string_characters)), max(least, self._bounds.string_characters))
        if least > most:
            return None
        patterns = [*flat.get("pattern", ()), *(PATTERNS[name] for name in flat.get("format", ()) if name in PATTERNS)]
        made: dict[str, Any] = {"type": "string", "maxLength": most}
        if least:
            made["minLength"] = least
        if patterns:
            made["pattern"] = patterns[0]
        if len(patterns) > 1:
            made["allOf"] = [{"type": "string", "pattern": pattern} for pattern in patterns[1:]]
        return made

    def _number(self, kind: str, flat: Flat) -> dict[str, Any] | None:
        wide = self._bounds.number
        made: dict[str, Any] = {"type": kind}
        for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            if keyword in flat:
                made[keyword] = flat[keyword]
        low = max((made[keyword] for keyword in ("minimum", "exclusiveMinimum") if keyword in made), default=None)
        high = min((made[keyword] for keyword in ("maximum", "exclusiveMaximum") if keyword in made), default=None)
        if low is None:
            made["minimum"] = low = -wide if high is None or high > -wide else high * 10
        if high is None:
            made["maximum"] = high = wide if low < wide else low * 10
        if low > high:
            return None
        steps = flat.get("multipleOf", [])
        if len(steps) == 1:
            made["multipleOf"] = steps[0]
        elif steps:
            made["allOf"] = [{"type": kind, "multipleOf": step} for step in steps]
        elif kind == "number" and high - low >= 1e-3:
            made["multipleOf"] = 0.000001
        return made

    def _array(self, flat: Flat, free: int) -> dict[str, Any] | None:
        least = int(flat.get("minItems", 0))
        most = min(int(flat.get("maxItems", self._bounds.array_items)), max(least, self._bounds.array_items))
        first: list[Any] = []
        for parts in flat.get("prefixItems", [])[:most]:
            made = self.node(parts, free)
            if made is False:
                most = min(most, len(first))
                break
            first.append(made)
        rest: Any = False
        if most > len(first):
            rest = self.node(flat["items"], free) if "items" in flat else self.node([], free + 1)
            most = most if rest is not False else len(first)
        if least > most:
            return None
        if flat.get("uniqueItems") and most > 1:
            self.unenforced.add("uniqueItems")
        array: dict[str, Any] = {"type": "array", "minItems": least, "maxItems": most, "items": rest}
        if first:
            array["prefixItems"] = first
        return array

    def _object(self, flat: Flat, free: int) -> dict[str, Any] | None:
        others = flat.get("additionalProperties", flat.get("unevaluatedProperties"))
        patterns = flat.get("patternProperties", {})
        required = flat.get("required", [])
        listed = dict(flat.get("properties", {}))
        for name in required:
            listed.setdefault(name, others or [])
        properties: dict[str, Any] = {}
        dropped = False
        for name, parts in listed.items():
            if not all(self._accepts(part.schema, name) for part in flat.get("propertyNames", ())):
                if name in required:
                    return None
                dropped = True
                continue
            made = self.node([*parts, *_matched(patterns, name)], free)
            if made is not False:
                properties[name] = made
            elif name in required:
                return None
            else:
                dropped = True
        return self._counted(flat, properties, others, free, is_closed=dropped)

    def _counted(self, flat: Flat, properties: dict[str, Any], others: list[Scoped] | None, free: int, *, is_closed: bool) -> dict[str, Any] | None:
        """Bring the number of properties into the schema's bounds. The engine counts only where every listed property is required.

        A name that was left out must not come in as one that is not listed: then the object ``is_closed``.
        """
        required = list(flat.get("required", []))
        least, most = int(flat.get("minProperties", 0)), flat.get("maxProperties")
        if most is not None and most < len(required):
            return None
        patterns = flat.get("patternProperties", {})
        made: dict[str, Any] = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        if is_closed:
            pass
        elif not patterns and (not properties or least > len(properties) or _says_something(others)):
            self._open(made, others, flat.get("propertyNames", []), free)
        elif patterns:
            self.unenforced.update({"propertyNames"} & flat.keys())
            made["patternProperties"] = {pattern: value for pattern, parts in patterns.items() if (value := self.node(parts, free)) is not False}
        properties = made["properties"]
        optional = [name for name in properties if name not in required]
        is_open = bool(made.get("patternProperties")) or made["additionalProperties"] is not False
        if optional and (least > len(required) or most is not None):
            if is_open and most is not None:
                made.pop("patternProperties", None)
                made["additionalProperties"] = is_open = False
            optional = optional if most is None else optional[: int(most) - len(required)]
            required = [*required, *optional[: max(0, least - len(required))]]
            properties = {name: value for name, value in properties.items() if name in required or name in optional}
            made |= {"properties": properties, "required": required}
            optional = [name for name in properties if name not in required]
        if least > len(required):
            if not is_open or optional:
                return None
            made["minProperties"] = least
            if least > 1:
                self.unenforced.add("minProperties")  # a name that comes twice counts once
        if is_open and not optional:
            made["maxProperties"] = int(most) if most is not None else len(properties) + self._bounds.map_entries
        return made

    def _open(self, made: dict[str, Any], others: list[Scoped] | None, names: list[Scoped], free: int) -> None:
        """Let in properties that the schema does not list: a map, or some beside those that are listed."""
        value = self.node(others, free) if others is not None and _says_something(others) else self.node([], free + 1)
        if value is False:
            return
        if made["properties"]:
            self.unenforced.update({"propertyNames"} if names else ())
            made["additionalProperties"] = value
            return
        named = self.node([*names, Scoped({"type": "string"})]) if names else {"type": "string", "pattern": _KEY}
        if isinstance(named, dict) and all(isinstance(name, str) for name in named.get("enum", [0])):
            made["properties"] = dict.fromkeys(named["enum"], value)
        elif isinstance(named, dict) and "pattern" in named and "allOf" not in named:
            made["patternProperties"] = {named["pattern"]: value}
            if "minLength" in named or named.get("maxLength", self._bounds.string_characters) != self._bounds.string_characters:
                self.unenforced.add("propertyNames")
        else:
            self.unenforced.add("propertyNames")
            made["patternProperties"] = {_KEY: value}


def _matched(patterns: dict[str, list[Scoped]], name: str) -> list[Scoped]:
    from appliance.schema.schema_keywords import matches

    return [part for pattern, parts in patterns.items() if matches(pattern, name) for part in parts]


def _says_something(parts: list[Scoped] | None) -> bool:
    return parts is not None and any(part.schema not in (True, {}) for part in parts)


def keywords_of(schema: object) -> set[str]:
    """Every keyword that decides something, anywhere in the schema."""
    return {keyword for place in places(schema) for keyword in place.schema} - ANNOTATIONS - (CORE - {"$ref"}) - {"$defs", "definitions"}
