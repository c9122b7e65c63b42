"""References inside one schema: where they lead, and whether what they build can ever end. Pure; nothing is fetched.

Owns: pointers and anchors of one document without embedded ``$id`` (with them, the checker resolves; the grammar leaves such references to it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from appliance.schema.places import IN_PLACE, places

ABSENT: Final = object()


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


def endless(root: object) -> tuple[str, str, str] | None:
    """Pointer, keyword and why, where a schema can never end: no finite value satisfies the schema, or a schema applies itself to the same value.

    A value exists when some choice of alternatives needs only values that exist (the least fixpoint over objects' required properties, arrays' least
    items and references); whatever this cannot see counts as possible, so nothing sound is refused.
    """
    references = References(root)
    for place in places(root):
        if _circles(place.schema, references):
            return place.pointer, "$ref", "it leads back to itself"
    finite: set[int] = set()
    found = list(places(root))
    while True:
        added = [place for place in found if id(place.schema) not in finite and _ends(place.schema, references, finite)]
        if not added:
            break
        finite.update(id(place.schema) for place in added)
    if isinstance(root, Mapping) and id(root) not in finite:
        stuck = [place for place in found if id(place.schema) not in finite]
        first = next((place for place in stuck if "$ref" in place.schema), stuck[0])
        keyword = next((keyword for keyword in ("$ref", "allOf", "anyOf", "oneOf") if keyword in first.schema), "required")
        return first.pointer, keyword, "no value that ends satisfies it"
    return None


def _circles(schema: Mapping[str, Any], references: References) -> bool:
    """Whether following references in place comes back to ``schema``."""
    seen: set[int] = set()
    stack: list[object] = [references.target(schema["$ref"])] if "$ref" in schema else []
    while stack:
        found = stack.pop()
        if found is schema:
            return True
        if not isinstance(found, Mapping) or id(found) in seen:
            continue
        seen.add(id(found))
        if "$ref" in found:
            stack.append(references.target(found["$ref"]))
        for keyword in IN_PLACE & found.keys():
            value = found[keyword]
            stack.extend(
                value if isinstance(value, list) else value.values() if keyword == "dependentSchemas" and isinstance(value, Mapping) else [value]
            )
    return False


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
