"""What a JSON Schema says about the places that a template reads, and which fields of it data may leave out.

Only what is needed to tell a wrong name from a right one: ``properties``, ``items``, ``type``, ``required``, ``$ref`` within the schema, ``anyOf``,
``oneOf``, ``allOf``. Whether data satisfies the schema is the schema gate's question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MOST_ALTERNATIVES: Final = 64
_NESTING: Final = ("anyOf", "oneOf", "allOf")
_OBJECT_WORDS: Final = frozenset({"properties", "additionalProperties", "required", "patternProperties"})


@dataclass(frozen=True, slots=True)
class Shape:
    """A place in the data: the schemas that speak about it."""

    root: Mapping[str, Any]
    alternatives: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> Shape:
        """The data as a whole."""
        return cls(schema, _alternatives(schema, [schema]))

    @property
    def anything(self) -> bool:
        """Whether nothing is known about it."""
        return not self.alternatives or any(_is_open(one) for one in self.alternatives)

    def child(self, name: str) -> Shape | None:
        """The field ``name``; None when the schema does not know it."""
        found = [one["properties"][name] for one in self.alternatives if name in one.get("properties", ())]
        if found:
            return Shape(self.root, _alternatives(self.root, found))
        return Shape(self.root, ()) if self.anything else None

    def items(self) -> Shape | None:
        """One item; None when it is no list."""
        if not self.may_be("array"):
            return None
        found = [one["items"] for one in self.alternatives if isinstance(one.get("items"), Mapping)]
        return Shape(self.root, _alternatives(self.root, found))

    def may_be(self, *kinds: str) -> bool:
        """Whether a value of one of these JSON types fits."""
        return self.anything or any(set(_kinds(one)) & set(kinds) for one in self.alternatives)

    def optional(self) -> list[str]:
        """Fields that are known and that data may leave out."""
        known = dict.fromkeys(name for one in self.alternatives for name in one.get("properties", ()))
        needed = [set(one.get("required", ())) for one in self.alternatives if "properties" in one]
        return [name for name in known if not all(name in names for names in needed)]


def completed(data: Any, shape: Shape) -> Any:
    """``data`` with None where a field that may be absent is absent; what must be there and is not stays absent."""
    if isinstance(data, Mapping):
        known = {name: completed(value, child) if (child := shape.child(name)) is not None else value for name, value in data.items()}
        return dict.fromkeys(shape.optional()) | known
    if isinstance(data, list | tuple):
        inner = shape.items()
        return [completed(item, inner) for item in data] if inner is not None else list(data)
    return data


def _alternatives(root: Mapping[str, Any], schemas: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    """``schemas`` with references followed and alternatives laid side by side."""
    found: list[Mapping[str, Any]] = []
    waiting = list(schemas)
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_ALTERNATIVES:
        one = waiting.pop(0)
        if one is True:
            one = {}
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        inner = [part for word in _NESTING for part in one.get(word, ())]
        target = _target(root, one.get("$ref"))
        waiting += inner if target is None else [*inner, target]
        if _kinds(one) or not (inner or target is not None):
            found.append(one)
    return tuple(found)


def _target(root: Mapping[str, Any], reference: object) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: Any = root
    for step in reference.lstrip("#").strip("/").split("/") if reference not in {"#", "#/"} else ():
        name = step.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _kinds(schema: Mapping[str, Any]) -> Sequence[str]:
    """JSON types that the schema speaks about; () = it says nothing."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return (kind,)
    if isinstance(kind, list):
        return kind
    if _OBJECT_WORDS & schema.keys():
        return ("object",)
    if "items" in schema or "prefixItems" in schema:
        return ("array",)
    return ("string", "number", "integer", "boolean", "null") if {"enum", "const"} & schema.keys() else ()


def _is_open(schema: Mapping[str, Any]) -> bool:
    """Whether an object of any fields fits, of which nothing is known."""
    kinds = _kinds(schema)
    return not kinds or ("object" in kinds and "properties" not in schema)
