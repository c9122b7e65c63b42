"""Which schemas can be filled with quotes, field by field. Pure.

A reader that does not write can say what a document says: strings, numbers, dates, one of several words, lists of these, and objects of these. It cannot
judge or invent: a truth value, a map of free names, a choice between forms is refused, naming the place.

Two annotations help it where a schema was written for models that write (``appliance.schema.annotations`` keeps them from those): ``x-ask``, the question
instead of title and description, with ``{prompt}`` for the prompt; ``x-from``, where the value comes from, tried in order (``Source``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast, get_args

from appliance.schema.gate import AdmittedSchema, refusal
from appliance.schema.places import escaped
from appliance.schema.references import ABSENT, References

Kind = Literal["string", "number", "integer", "date", "choice"]
Source = Literal["quotes", "cited", "date", "prompt", "passages", "sentences", "place", "empty"]
"""``quotes``: what answers the question, as it stands; ``cited``: with its number; ``date``: the first date in it, ISO. ``prompt``: the prompt's own words.
For a list of objects, ``passages`` or ``sentences``: one object for each that was found for the prompt; in these, ``place`` is the heading above it, and for
a list ``sentences`` its sentences. ``empty``: "" or []."""

_SOURCES: Final = frozenset(get_args(Source))
MOST_FIELDS: Final = 40
_FOLLOWED: Final = 8
_WHY: Final = "this model quotes and writes nothing of its own; "


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to look for.

    Attributes:
        pointer: of the value in the data.
        name: of the property.
        question: what to ask, made from title and description.
        kind: of the value, or of the items.
        many: a list of such values.
        required: it may not be absent.
        nullable: null is allowed.
        choices: of a ``choice``.
        fields: a list of objects with these instead of a value (``many`` is true).
        sources: where the value comes from, tried in order.
        told: the schema names ``sources``: texts that are too long are cut, lists too.
        longest: characters of a text; None = no limit.
        most: items of a list; None = no limit.
    """

    pointer: str
    name: str
    question: str
    kind: Kind
    many: bool = False
    required: bool = False
    nullable: bool = False
    choices: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    sources: tuple[Source, ...] = ("quotes",)
    told: bool = False
    longest: int | None = None
    most: int | None = None


def fields_of(admitted: AdmittedSchema) -> tuple[Field, ...]:
    """What to look for.

    Raises:
        ApplianceError: ``schema_unsupported``, naming keyword and JSON pointer.
    """
    reader = _Reader(References(admitted.schema))
    root, _ = reader.resolved(admitted.schema, "")
    if root.get("type") != "object":
        raise refusal("schema_unsupported", "", "type", _WHY + "it fills objects only")
    fields = reader.fields(root, "", nested=False)
    if sum(1 + len(field.fields) for field in fields) > MOST_FIELDS:
        raise refusal("schema_unsupported", "", "properties", f"more than {MOST_FIELDS} fields to look for")
    return fields


class _Reader:
    def __init__(self, references: References) -> None:
        self._references = references

    def fields(self, schema: Mapping[str, Any], pointer: str, *, nested: bool) -> tuple[Field, ...]:
        if not schema.get("properties"):
            raise refusal("schema_unsupported", pointer, "properties", _WHY + "it needs to be told what to look for")
        for keyword in ("allOf", "anyOf", "oneOf", "not", "if", "patternProperties"):
            if keyword in schema:
                raise refusal("schema_unsupported", pointer, keyword, _WHY + "it does not choose between forms")
        required = schema.get("required", ())
        return tuple(
            self._field(name, part, f"{pointer}/{escaped(name)}", name in required, nested=nested) for name, part in schema["properties"].items()
        )

    def _field(self, name: str, schema: object, pointer: str, required: bool, *, nested: bool) -> Field:
        found, nullable = self.resolved(schema, pointer)
        sources = _sources(found, pointer)
        items = self.resolved(found.get("items", {}), f"{pointer}/items")[0] if found.get("type") == "array" else {}
        plain = Field(
            pointer, name, _question(name, found), "string", bool(items) or found.get("type") == "array", required, nullable,
            sources=sources, told="x-from" in found, longest=(items or found).get("maxLength"), most=found.get("maxItems"),
        )  # fmt: skip
        if sources == ("empty",):
            return plain
        if items.get("type") == "object":
            if nested:
                raise refusal("schema_unsupported", pointer, "items", _WHY + "lists within lists are beyond it")
            return replace(plain, fields=self.fields(items, pointer, nested=True))
        kind, choices = _kind(items, f"{pointer}/items") if plain.many else _kind(found, pointer)
        return replace(plain, kind=kind, choices=choices)

    def resolved(self, schema: object, pointer: str) -> tuple[Mapping[str, Any], bool]:
        """The schema behind references and behind "or null", and whether null is allowed."""
        nullable = False
        for _ in range(_FOLLOWED):
            if not isinstance(schema, Mapping):
                return {}, nullable
            if "$ref" in schema and (target := self._references.target(schema["$ref"])) is not ABSENT and isinstance(target, Mapping):
                schema = {**target, **{keyword: value for keyword, value in schema.items() if keyword != "$ref"}}
            elif isinstance(options := schema.get("anyOf", schema.get("oneOf")), list) and len(options) == 2 and {"type": "null"} in options:
                nullable = True
                other = options[1 - options.index({"type": "null"})]
                schema = {**(other if isinstance(other, Mapping) else {}), **{k: v for k, v in schema.items() if k not in {"anyOf", "oneOf"}}}
            elif isinstance(kinds := schema.get("type"), list):
                rest = [kind for kind in kinds if kind != "null"]
                if len(rest) != 1:
                    raise refusal("schema_unsupported", pointer, "type", _WHY + "it does not choose between types")
                nullable, schema = "null" in kinds, {**schema, "type": rest[0]}
            else:
                return schema, nullable
        raise refusal("schema_unsupported", pointer, "$ref", _WHY + "references lead too deep")


def _kind(schema: Mapping[str, Any], pointer: str) -> tuple[Kind, tuple[str, ...]]:
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        words = tuple(choice for choice in choices if isinstance(choice, str))
        if not words:
            raise refusal("schema_unsupported", pointer, "enum", _WHY + "it recognises words only")
        return "choice", words
    named = schema.get("type")
    if named == "string":
        form = schema.get("format")
        if form not in {None, "date"}:
            raise refusal("schema_unsupported", pointer, "format", _WHY + f"it does not look for {form}")
        return ("date" if form == "date" else "string"), ()
    if named == "number":
        return "number", ()
    if named == "integer":
        return "integer", ()
    raise refusal("schema_unsupported", pointer, "type", _WHY + f"it does not fill {named or 'values of any type'}")


def _sources(schema: Mapping[str, Any], pointer: str) -> tuple[Source, ...]:
    named = schema.get("x-from", "quotes")
    sources = tuple(named) if isinstance(named, list) else (named,)
    if not sources or not all(isinstance(source, str) and source in _SOURCES for source in sources):
        raise refusal("schema_unsupported", pointer, "x-from", f"it names none of {', '.join(sorted(_SOURCES))}")
    return cast("tuple[Source, ...]", sources)


def _question(name: str, schema: Mapping[str, Any]) -> str:
    """``x-ask``, else the description when there is one, for it is written to be understood; with the title when it is short of words."""
    if isinstance(asked := schema.get("x-ask"), str) and asked.strip():
        return asked.strip()
    title, description = schema.get("title"), schema.get("description")
    words = title if isinstance(title, str) and title.strip() else name.replace("_", " ")
    if isinstance(description, str) and description.strip():
        return description.strip() if description.strip().endswith("?") else f"{words}: {description.strip()}"
    return words
