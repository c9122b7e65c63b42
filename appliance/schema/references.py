"""References inside one schema: where they lead, and whether what they build can ever end. Pure; nothing is fetched.

Owns: pointers and anchors of one document without embedded ``$id`` (with them, the checker resolves; the grammar leaves such references to it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from appliance.schema.places import IN_PLACE, Place, places

ABSENT: Final = object()
_MOST_ROUNDS: Final = 64


class References:
    """Looks up ``#``, ``#/json/pointer`` and ``#anchor``."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._anchors: dict[str, object] = {}
        self.has_resources = False
        for place in places(root):
            if place.pointer and isinstance(place.schema.get("$id"), str):
                self.has_resources = True
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := place.schema.get(keyword), str):
                    self._anchors.setdefault(anchor, place.schema)

    def target(self, reference: object) -> object:
        """The schema that is meant, or ``ABSENT``."""
        if self.has_resources or not isinstance(reference, str) or not reference.startswith("#"):
            return ABSENT
        fragment = unquote(reference[1:])
        if not fragment:
            return self._root
        if not fragment.startswith("/"):
            return self._anchors.get(fragment, ABSENT)
        found = self._root
        for step in fragment[1:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                return ABSENT
        return found if isinstance(found, Mapping | bool) else ABSENT


def astray(root: object) -> tuple[str, str, str] | None:
    """Pointer, keyword and why, where a reference leads nowhere or a schema can never end: no finite value satisfies the schema, or a schema applies itself to the same value.

    A value exists when some choice of alternatives needs only values that exist (the least fixpoint over objects' required properties, arrays' least
    items and references); whatever this cannot see counts as possible, so nothing sound is refused.
    """
    references = References(root)
    found = list(places(root))
    for place in found:
        if "$ref" in place.schema and not references.has_resources and references.target(place.schema["$ref"]) is ABSENT:
            return place.pointer, "$ref", f"it leads nowhere: {str(place.schema['$ref'])[:100]!r}"
    if (circle := _circle(found, references)) is not None:
        return circle.pointer, "$ref", "it leads back to itself"
    finite: set[int] = set()
    for _ in range(_MOST_ROUNDS):
        added = False
        for place in reversed(found):  # what is inside comes first: nesting takes one round
            if id(place.schema) not in finite and _ends(place.schema, references, finite):
                finite.add(id(place.schema))
                added = True
        if not added:
            break
    else:
        return None  # not known; what has no end shows when it is written out
    if not isinstance(root, Mapping) or id(root) in finite:
        return None
    stuck = [place for place in found if id(place.schema) not in finite]
    first = next((place for place in stuck if "$ref" in place.schema), stuck[0])
    keyword = next((keyword for keyword in ("$ref", "allOf", "anyOf", "oneOf") if keyword in first.schema), "required")
    return first.pointer, keyword, "no value that ends satisfies it"


def _circle(found: Sequence[Place], references: References) -> Place | None:
    """The first place from which schemas applied to the same value come back to where they were; depth first, each place once."""
    done: set[int] = set()
    for place in found:
        open_: set[int] = set()
        stack: list[tuple[object, bool]] = [(place.schema, False)]
        while stack:
            schema, leaving = stack.pop()
            if not isinstance(schema, Mapping):
                continue
            if leaving:
                open_.discard(id(schema))
                done.add(id(schema))
            elif id(schema) in open_:
                return place
            elif id(schema) not in done:
                open_.add(id(schema))
                stack.append((schema, True))
                stack.extend((part, False) for part in _in_place(schema, references))
    return None


def _in_place(schema: Mapping[str, Any], references: References) -> Iterator[object]:
    if "$ref" in schema:
        yield references.target(schema["$ref"])
    for keyword in IN_PLACE & schema.keys():
        value = schema[keyword]
        if keyword == "dependentSchemas":
            yield from value.values() if isinstance(value, Mapping) else ()
        elif isinstance(value, list):
            yield from value
        else:
            yield value


def _ends(schema: Mapping[str, Any], references: References, finite: set[int]) -> bool:
    def known(part: object) -> bool:
        return part is not False and (not isinstance(part, Mapping) or id(part) in finite)

    if "$ref" in schema and (target := references.target(schema["$ref"])) is not ABSENT and not known(target):
        return False
    for keyword in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(keyword), list) and options and not any(known(option) for option in options):
            return False
    if isinstance(every := schema.get("allOf"), list) and not all(known(part) for part in every):
        return False
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or set(kinds) - {"object", "array"}:
        return True  # a number, a string, null will do
    return ("object" in kinds and _object_ends(schema, known)) or ("array" in kinds and _array_ends(schema, known))


def _object_ends(schema: Mapping[str, Any], known: Any) -> bool:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return True
    return all(known(properties[name]) for name in required if isinstance(name, str) and name in properties)


def _array_ends(schema: Mapping[str, Any], known: Any) -> bool:
    least = schema.get("minItems", 0)
    first = schema.get("prefixItems")
    first = first if isinstance(first, list) else []
    if not isinstance(least, int | float) or not all(known(part) for part in first[: int(min(least, len(first)))]):
        return not isinstance(least, int | float)
    return least <= len(first) or known(schema.get("items", True))
