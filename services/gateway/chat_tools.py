"""What ``tools``, ``tool_choice`` and ``response_format`` of a request mean, checked before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import AnswerSchema, ToolSpec
from appliance.kit.errors import ApplianceError
from services.gateway.chat_request import WireTool
from services.gateway.error_bodies import invalid

_CHOICES: Final = ("auto", "none", "required")
_ANY_OBJECT: Final[Mapping[str, object]] = {"type": "object"}
_MOST_NAME: Final = 64
_MOST_PARAMETER_BYTES: Final = 262_144  # of all functions together: a schema costs 20 ms of CPU for each KB when it is seen first


def tool_specs(tools: Sequence[WireTool] | None) -> tuple[ToolSpec, ...]:
    """The caller's functions.

    Raises:
        ApplianceError: ``invalid_request`` for other kinds of tools and for a name given twice, ``schema_invalid`` for parameters that are no schema.
    """
    if sum([len(msgspec.json.encode(tool.function.parameters)) for tool in tools or ()]) > _MOST_PARAMETER_BYTES:
        raise invalid(f"the parameters of all functions have more than {_MOST_PARAMETER_BYTES:,} bytes", "tools", hint="offer fewer")
    specs: dict[str, ToolSpec] = {}
    for index, tool in enumerate(tools or ()):
        if tool.type != "function":
            raise invalid(f"tools of type {tool.type[:40]!r} are not available", f"tools[{index}].type", hint="offer functions")
        function = tool.function
        if function.name in specs:
            raise invalid(f"two functions are named {function.name!r}", f"tools[{index}].function.name")
        parameters = function.parameters or _ANY_OBJECT
        if function.parameters:
            _admit(parameters, f"tools[{index}].function.parameters")
        specs[function.name] = ToolSpec(function.name, function.description or "", parameters, strict=bool(function.strict))
    return tuple(specs.values())


def chosen(choice: str | Mapping[str, Any] | None, tools: Sequence[ToolSpec]) -> str:
    """``auto``, ``none``, ``required`` or the name of a function; raises ``invalid_request``."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise invalid("tool_choice must be 'auto', 'none', 'required' or a function", "tool_choice")
        if choice == "required" and not tools:
            raise invalid("tool_choice 'required' without tools", "tool_choice")
        return choice
    function = choice.get("function", choice)  # the Responses API names it flat
    name = function.get("name") if isinstance(function, dict) and choice.get("type", "function") == "function" else None
    if not isinstance(name, str):
        raise invalid("tool_choice must be 'auto', 'none', 'required' or a function", "tool_choice")
    if name not in {tool.name for tool in tools}:
        raise invalid(f"tool_choice names {name[:_MOST_NAME]!r}, which is not among the tools", "tool_choice")
    return name


def answer_schema(response_format: Mapping[str, Any] | None) -> AnswerSchema | None:
    """The schema that the answer must satisfy; None = free text.

    Raises:
        ApplianceError: ``invalid_request``, ``schema_invalid``, ``schema_unsupported``.
    """
    if response_format is None:
        return None
    match response_format.get("type"):
        case "text":
            return None
        case "json_object":
            return AnswerSchema("json_object", _ANY_OBJECT)
        case "json_schema":
            return _named_schema(response_format.get("json_schema", response_format))
    raise invalid("the form of an answer is 'text', 'json_object' or 'json_schema'", "response_format.type")


def _admit(schema: Mapping[str, object], param: str) -> None:
    from appliance.schema.gate import admit  # with it comes a schema library, which a start need not wait for

    try:
        admit(schema)
    except ApplianceError as error:
        error.context.setdefault("param", param)
        raise


def _named_schema(wire: object) -> AnswerSchema:
    schema = wire.get("schema") if isinstance(wire, dict) else None
    if not isinstance(wire, dict) or not isinstance(schema, dict):
        raise invalid("a form of type 'json_schema' needs a schema", "response_format.json_schema.schema")
    name = wire.get("name", "answer")
    if not isinstance(name, str) or len(name) > _MOST_NAME:
        raise invalid("the name of a schema must be a short string", "response_format.json_schema.name")
    _admit(schema, "response_format.json_schema.schema")
    return AnswerSchema(name, schema, strict=wire.get("strict") is not False)
