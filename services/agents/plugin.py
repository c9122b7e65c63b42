"""What a tool is, and what gives tools: the API of plugins.

A plugin is an object with a name, its tools as of now, and its health; ``Toolbox`` takes any number. Built-in plugins are ``document_tools``,
``task_tools`` and ``arithmetic_tools``; ``mcp_plugin`` turns an MCP server into one. Owns: the values and the Protocol. Does not own: who may call what
(``toolbox``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from appliance.contracts.llm.v1.api import ToolSpec
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.tools.v1.api import ToolContext
from appliance.schema.schema_check import encoded

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_RESULT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool brought.

    Attributes:
        content: text for the model, JSON where it has a structure.
        passages: what was found in documents, to be cited.
    """

    content: str
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. It runs with the rights of ``context.principal`` and must check them where its data are.

    Attributes:
        name: a-z A-Z 0-9 _ -, up to 64 characters (OpenAI's rule).
        description: for the model.
        parameters: strict JSON Schema of an object; ``additionalProperties`` false for built-in tools.
        call: does it; cancelled when the time is over or the caller is gone.
        read_only: changes nothing anywhere; else it counts as writing: runs alone, in order, never twice, never from a cache.
        roles: global roles of which the caller needs one; empty = everyone.
        timeout_seconds: longest time of one call.
        max_result_bytes: of the content in UTF-8; more is cut.
        invalidates: names of read-only tools whose cached results a call of this one makes stale; those of the same plugin are, anyway.
        cache_seconds: how long a result of a read-only tool may be used again; 0 = never.
        per_person: results depend on who asks, not only on rights.
        of_documents: results depend on documents: any change of documents in the caller's spaces makes them stale.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[[Mapping[str, Any], ToolContext], Awaitable[ToolResult]]
    read_only: bool = False
    roles: frozenset[str] = frozenset()
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_result_bytes: int = DEFAULT_RESULT_BYTES
    invalidates: tuple[str, ...] = ()
    cache_seconds: float = 0.0
    per_person: bool = False
    of_documents: bool = False
    schema: bytes = field(init=False, compare=False)
    spec: ToolSpec = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", encoded(dict(self.parameters)))
        object.__setattr__(self, "spec", ToolSpec(self.name, self.description, self.parameters, strict=_is_strict(self.parameters)))


class Plugin(Protocol):
    """Gives tools."""

    @property
    def name(self) -> str:
        """``plugin:<name>`` or ``mcp:<server>``: the source of its tools' results."""
        ...

    def tools(self) -> Sequence[Tool]:
        """Those that can be called now; in memory, the same objects while nothing changes."""
        ...

    def health(self) -> str:
        """``ok``, or what is wrong, for operators."""
        ...


@dataclass(frozen=True, slots=True)
class FixedPlugin:
    """A plugin whose tools never change."""

    name: str
    fixed: tuple[Tool, ...]

    def tools(self) -> Sequence[Tool]:
        """See ``Plugin``."""
        return self.fixed

    def health(self) -> str:
        """See ``Plugin``."""
        return "ok"


def strict_object(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """JSON Schema of an object with these properties and no others."""
    return {"type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False}


def _is_strict(parameters: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict mode can take it: every property required and no other allowed."""
    return parameters.get("additionalProperties") is False and set(parameters.get("required", ())) == set(parameters.get("properties", {}))
