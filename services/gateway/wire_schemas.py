"""JSON schemas of the contract's structs for the OpenAPI document.

msgspec cannot show ``Raw`` fields with defaults; so each struct is shown by a twin in which a payload is any JSON and its default is plain.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

_REF: Final = "#/components/schemas/{name}"


def wire_schemas(kinds: Sequence[type[msgspec.Struct]]) -> dict[str, Any]:
    """Components for ``kinds`` and everything they hold, by name."""
    twins: dict[type, Any] = {}
    _, components = msgspec.json.schema_components([_twin(kind, twins) for kind in kinds], ref_template=_REF)
    return components


def _twin(kind: type[msgspec.Struct], twins: dict[type, Any]) -> Any:
    if kind not in twins:
        fields = [_field(field, twins) for field in msgspec.structs.fields(kind)]
        required = [field for field in fields if len(field) == 2]
        optional = [field for field in fields if len(field) == 3]
        twins[kind] = msgspec.defstruct(kind.__name__, [*required, *optional], namespace={"__doc__": kind.__doc__}, kw_only=True)
    return twins[kind]


def _field(field: msgspec.structs.FieldInfo, twins: dict[type, Any]) -> tuple[Any, ...]:
    shown = _shown(field.type, twins)
    if field.default_factory is not msgspec.NODEFAULT:
        return (field.encode_name, shown, msgspec.field(default_factory=field.default_factory))
    if field.default is msgspec.NODEFAULT:
        return (field.encode_name, shown)
    return (field.encode_name, shown, _plain(field.default))


def _plain(default: Any) -> Any:
    """A default that the twin may have: plain JSON, mutable ones through a factory."""
    value = msgspec.json.decode(msgspec.json.encode(default))
    if isinstance(value, dict | list):
        return msgspec.field(default_factory=lambda: msgspec.json.decode(msgspec.json.encode(value)))
    return value


def _shown(kind: Any, twins: dict[type, Any]) -> Any:
    if kind is msgspec.Raw:
        return Any
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _twin(kind, twins)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None:
        return kind
    if origin is Annotated:
        return Annotated[(_shown(arguments[0], twins), *arguments[1:])]
    inner = tuple(argument if argument is Ellipsis else _shown(argument, twins) for argument in arguments)
    if origin in (Union, types.UnionType):
        return Any if Any in inner else reduce(or_, inner)
    return origin[inner]
