"""msgspec structs to protobuf messages and back, by field name. Owns: that translation. Does not own: which struct goes with which message.

Rules: text and enumerations are ``string``; ``msgspec.Raw`` and free JSON (``dict``, ``Any``) are ``bytes`` that hold JSON; what is ``bytes`` here is
``bytes`` there, as it is; sequences are ``repeated`` and come back as tuples; what a message leaves out has the struct's default. What came over the wire
is checked: ``invalid_request`` names the field.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError

REQUIRED: Final = object()
"""In place of a default: the field has none."""
_NOTHING: Final = frozenset({type(None), msgspec.UnsetType})


def put(message: Any, name: str, value: object) -> None:
    """Set field ``name`` of ``message``; None leaves it out."""
    if value is None:
        return
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is None:
        if field.is_repeated:
            getattr(message, name).extend([_plain(field, item) for item in typing.cast("Sequence[object]", value)])
        else:
            setattr(message, name, _plain(field, value))
    elif field.is_repeated:
        for item in typing.cast("Sequence[msgspec.Struct]", value):
            fill(getattr(message, name).add(), item)
    else:
        target = getattr(message, name)
        target.SetInParent()
        fill(target, typing.cast("msgspec.Struct", value))


def fill(message: Any, value: msgspec.Struct) -> None:
    """Set every field of ``message`` from the struct's fields of the same names."""
    for name in value.__struct_fields__:
        put(message, name, getattr(value, name))


def take(message: Any, name: str, kind: Any, default: Any = REQUIRED) -> Any:
    """Field ``name`` as a value of type ``kind``.

    Raises:
        ApplianceError: ``invalid_request``: absent without a default, an unknown name of an enumeration, bytes that are no JSON.
    """
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        (item,) = _without_ellipsis(typing.get_args(without_none(kind)))
        return tuple(_value(one, item, name) for one in getattr(message, name))
    if field.has_presence and not message.HasField(name):
        if default is not REQUIRED:
            return default
        if allows_none(kind):
            return None
        raise ApplianceError("invalid_request", f"the field {name} is missing", hint="send it; the contract does not make it optional")
    return _value(getattr(message, name), without_none(kind), name)


def struct_of(message: Any, kind: type[Any]) -> Any:
    """The struct of type ``kind`` that ``message`` carries."""
    return kind(**{name: take(message, name, hint, default) for name, (hint, default) in _fields(typing.cast("Any", kind)).items()})


def without_none(kind: Any) -> Any:
    """``X`` of ``X | None``."""
    if not allows_none(kind) or kind is Any:
        return kind
    (one,) = [part for part in typing.get_args(kind) if part not in _NOTHING]
    return one


def allows_none(kind: Any) -> bool:
    """Whether ``kind`` is a union with None (or, for msgspec's decoders, with "unset")."""
    return isinstance(kind, types.UnionType | typing._UnionGenericAlias) and not _NOTHING.isdisjoint(typing.get_args(kind))  # type: ignore[attr-defined]  # noqa: SLF001


@cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, tuple[Any, Any]]:
    return {field.name: (field.type, _default(field)) for field in msgspec.structs.fields(kind)}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return REQUIRED


def _plain(field: Any, value: object) -> Any:
    if field.type == field.TYPE_BYTES:
        return bytes(value) if isinstance(value, msgspec.Raw | bytes) else msgspec.json.encode(value)
    return str(value) if field.type == field.TYPE_STRING else value


def _value(given: Any, kind: Any, name: str) -> Any:
    if isinstance(given, bytes):
        return given if kind is bytes else _json(given, kind, name)
    if isinstance(given, float) and not math.isfinite(given):  # JSON has none either; a timer of NaN seconds breaks the event loop's order
        raise ApplianceError("invalid_request", f"{name} is not a number", hint="send a finite one")
    if not isinstance(kind, type) or not issubclass(kind, msgspec.Struct | Enum):
        return given
    if issubclass(kind, msgspec.Struct):
        return struct_of(given, kind)
    try:
        return kind(given)
    except ValueError as error:
        known = ", ".join(str(one.value) for one in kind)
        raise ApplianceError("invalid_request", f"{name}: unknown value {str(given)[:100]!r}", hint=f"known: {known}") from error


def _json(given: bytes, kind: Any, name: str) -> Any:
    try:
        value = msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ApplianceError("invalid_request", f"{name} is not JSON: {error}", hint="send the bytes of one JSON value") from error
    return msgspec.Raw(given) if kind is msgspec.Raw else value


def _without_ellipsis(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(argument for argument in arguments if argument is not Ellipsis)
