"""The fields that a template reads: checked against a schema when there is one, made into one when there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.sgr.templates.expressions import Condition, Control, Path, Value, only_tests
from services.sgr.templates.failures import invalid
from services.sgr.templates.instructions import Choice, Container, Loop, Node, Picture, Shown, Table
from services.sgr.templates.shapes import Shape

_TEXT: Final = {"type": "string"}
GIVEN: Final[Mapping[str, Any]] = {  # what the box adds to every set of data
    "type": "object",
    "properties": {
        "sources": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"number": {"type": "integer"}, **dict.fromkeys(("document", "space", "heading", "quote"), _TEXT), "page": {"type": ["integer", "null"]},
                               "version": {"type": "integer"}},
            },
        },
        "today": {"type": "string", "format": "date"},
        "language": _TEXT,
    },
}  # fmt: skip
_LOOP: Final = {
    "type": "object",
    "properties": {"index": {"type": "integer"}, "length": {"type": "integer"}, "first": {"type": "boolean"}, "last": {"type": "boolean"}},
}
_SCALARS: Final = ("string", "number", "integer", "boolean", "null")


@dataclass(slots=True)
class Reading:
    """One use of a path: what it must be, and where it is read."""

    path: Path
    use: str  # text, truth, list, picture, number, date, join
    place: str
    inner: list[Reading] = field(default_factory=list)
    variable: str = ""


def readings(nodes: Sequence[Node], slide_controls: Sequence[tuple[Control, str]] = ()) -> list[Reading]:
    """What a part reads, loops with what is read inside of them. The controls of a slide are around all of it."""
    found = list(_read(nodes))
    for control, place in reversed(slide_controls):
        if control.verb == "for":
            assert control.path is not None
            found = [Reading(control.path, "list", place, found, control.variable)]
        else:
            assert control.condition is not None
            found = [*_tested(control.condition, place), *found]
    return found


def check(read: Sequence[Reading], schema: Mapping[str, Any]) -> None:
    """Raises ``template_invalid`` for the first field that ``schema`` does not know, or that is something else than its place needs."""
    clash = GIVEN["properties"].keys() & schema.get("properties", {}).keys()
    if clash:
        raise invalid(f"the schema has a field {min(clash)!r}, which the box fills itself", hint="leave sources, today and language out of the schema")
    _check(read, [_names(schema)])


def derived(read: Sequence[Reading]) -> dict[str, Any]:
    """A schema of what is read: texts are required unless a condition asks for them, lists always."""
    root = _Field()
    _collect(read, [{"": root}])
    schema = root.schema()
    for name in GIVEN["properties"]:
        schema["properties"].pop(name, None)
    schema["required"] = [name for name in schema["required"] if name in schema["properties"]]
    return schema


def _read(nodes: Sequence[Node]) -> Iterator[Reading]:
    for node in nodes:
        if isinstance(node, Shown):
            yield Reading(node.value.path, _use(node.value), node.place)
        elif isinstance(node, Picture):
            yield Reading(node.value.path, "picture", node.place)
        elif isinstance(node, Loop) and node.paragraphs:
            yield Reading(node.path, "text", node.place)
        elif isinstance(node, Loop):
            yield Reading(node.path, "list", node.place, list(_read(node.body)), node.variable)
        elif isinstance(node, Choice):
            for condition, body in node.branches:
                if condition is not None:
                    yield from _tested(condition, node.place)
                yield from _read(body)
        elif isinstance(node, Container | Table):
            yield from _read(node.body)


def _tested(condition: Condition, place: str) -> Iterator[Reading]:
    for test in only_tests(condition):
        yield Reading(test.left, "compared" if test.operator else "truth", place)
        if isinstance(test.right, Path):
            yield Reading(test.right, "compared", place)


def _use(value: Value) -> str:
    names = [one.name for one in value.filters]
    return next((use for name, use in (("join", "join"), ("length", "any"), ("date", "date"), ("number", "number"), ("percent", "number")) if name in names), "text")


def _names(schema: Mapping[str, Any]) -> dict[str, Shape]:
    shape, given = Shape.of(schema), Shape.of(GIVEN)
    return {"": shape} | {name: child for name in GIVEN["properties"] if (child := given.child(name)) is not None}


def _check(read: Sequence[Reading], scopes: list[dict[str, Shape]]) -> None:
    for one in read:
        shape = _found(one, scopes)
        fits = {"list": ("array",), "join": ("array", *_SCALARS), "truth": (), "any": (), "picture": ("string",)}.get(one.use, _SCALARS)
        if fits and not shape.may_be(*fits):
            wanted = {"list": "a list", "join": "a list", "picture": "a text with a picture (base64)"}.get(one.use, "a plain value")
            raise invalid(f"{one.path} is not {wanted} by the schema", one.place)
        if one.use == "list":
            item = shape.items()
            assert item is not None
            if one.variable in {"loop", *GIVEN["properties"]}:
                raise invalid(f"a loop cannot call its items {one.variable!r}", one.place, hint="choose another name")
            _check(one.inner, [*scopes, {one.variable: item, "loop": Shape.of(_LOOP)}])


def _found(one: Reading, scopes: list[dict[str, Shape]]) -> Shape:
    names = one.path.names
    scope = next((scope for scope in reversed(scopes) if names[0] in scope), None)
    shape: Shape | None = scopes[0][""].child(names[0]) if scope is None else scope[names[0]]
    for name in names[1:]:
        shape = None if shape is None else shape.child(name)
    if shape is None:
        raise invalid(f"the schema has no field {str(one.path)!r}", one.place, hint="correct the name in the template, or add the field to the schema")
    return shape


@dataclass(slots=True)
class _Field:
    """A field of a derived schema while it is found out."""

    uses: set[str] = field(default_factory=set)
    fields: dict[str, _Field] = field(default_factory=dict)
    item: _Field | None = None

    def schema(self) -> dict[str, Any]:
        if self.item is not None:
            return {"type": "array", "items": self.item.schema()}
        if self.fields or not self.uses:
            inner = {name: one.schema() for name, one in self.fields.items()}
            needed = [name for name, one in self.fields.items() if not one.uses & {"truth", "compared"} or one.uses <= {"truth"} or one.item is not None]
            return {"type": "object", "properties": inner, "required": needed, "additionalProperties": False}
        if self.uses == {"truth"}:
            return {"type": "boolean"}
        if "join" in self.uses:
            return {"type": "array", "items": {"type": "string"}}
        if "number" in self.uses:
            return {"type": "number"}
        if "picture" in self.uses:
            return {"type": "string", "description": "picture: PNG or JPEG as base64"}
        return {"type": "string", "format": "date"} if "date" in self.uses else {"type": "string"}


def _collect(read: Sequence[Reading], scopes: list[dict[str, _Field]]) -> None:
    for one in read:
        names = one.path.names
        scope = next((scope for scope in reversed(scopes) if names[0] in scope), None)
        if scope is not None and names[0] == "loop":
            continue
        place = scopes[0][""].fields.setdefault(names[0], _Field()) if scope is None else scope[names[0]]
        for name in names[1:]:
            place = place.fields.setdefault(name, _Field())
        if one.use != "list":
            place.uses.add(one.use)
            continue
        place.item = place.item or _Field()
        _collect(one.inner, [*scopes, {one.variable: place.item, "loop": _Field()}])
