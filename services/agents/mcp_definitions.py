"""What an MCP server says about its tools → tools of this box, bounded and cleaned. Pure.

A description is text of a stranger that a model will read as if it were ours: it is cut, and invisible characters are removed. A schema is bounded, checked, and
closed (``additionalProperties`` false) where the server left it open.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.agents.agents_toml import ServerTable

MOST_TOOLS: Final = 64
MOST_SCHEMA_BYTES: Final = 16 * 1024
_MOST_DESCRIPTION: Final = 800
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPEN: Final = frozenset({"allOf", "anyOf", "oneOf", "$ref", "patternProperties", "additionalProperties", "unevaluatedProperties", "if"})


@dataclass(frozen=True, slots=True)
class Definition:
    """One tool as its server describes it.

    Attributes:
        remote: its name there; ``name`` is that with the server in front.
        digest: of everything that the server said about it.
    """

    remote: str
    name: str
    description: str
    parameters: Mapping[str, Any]
    read_only: bool
    digest: str


def definitions(
    server: str, table: ServerTable, told: Sequence[Any], check_schema: Callable[[bytes], None]
) -> tuple[dict[str, Definition], list[str]]:
    """Tools that can be taken, by name, and why others are not.

    Args:
        server: its name.
        table: what the operator says about it.
        told: ``mcp_types.Tool`` values.
        check_schema: raises ApplianceError for a schema that cannot be checked in bounded time.
    """
    taken: dict[str, Definition] = {}
    refused: list[str] = []
    for tool in told:
        if table.tools and tool.name not in table.tools:
            continue
        if len(taken) >= MOST_TOOLS:
            refused.append(f"more than {MOST_TOOLS} tools: name those that you want with tools = […]")
            break
        name = f"{server}__{tool.name}"
        if not _NAME.fullmatch(name):
            refused.append(f"{tool.name[:40]!r} is no name of a tool")
            continue
        try:
            one = _definition(name, table, tool, check_schema)
        except ApplianceError as error:
            refused.append(f"{tool.name[:40]}: {error.message}")
            continue
        taken.setdefault(name, one)
    return taken, refused[:10]


def pin_of(found: Mapping[str, Definition]) -> str:
    """Digest of all definitions, for ``pin`` in ``agents.toml``."""
    return hashlib.sha256("\n".join(f"{name} {one.digest}" for name, one in sorted(found.items())).encode()).hexdigest()


def _definition(name: str, table: ServerTable, tool: Any, check_schema: Callable[[bytes], None]) -> Definition:
    schema = tool.input_schema
    try:
        raw = msgspec.json.encode(schema, order="sorted")
    except (TypeError, ValueError, RecursionError) as exc:
        raise ApplianceError("schema_invalid", "its schema is no JSON") from exc
    if len(raw) > MOST_SCHEMA_BYTES:
        raise ApplianceError("schema_invalid", f"its schema has {len(raw):,} bytes, at most {MOST_SCHEMA_BYTES:,}")
    if schema.get("type") != "object":
        raise ApplianceError("schema_invalid", "its schema is not that of an object")
    parameters = schema if _OPEN & schema.keys() else {**schema, "additionalProperties": False}
    check_schema(msgspec.json.encode(parameters, order="sorted"))
    hint = tool.annotations.read_only_hint if tool.annotations is not None else None
    said = [tool.name, tool.description or "", raw.decode(), hint]
    return Definition(
        remote=tool.name, name=name, description=_clean(tool.description or ""), parameters=parameters,
        read_only=tool.name in table.read_only or (table.trust_annotations and hint is True),
        digest=hashlib.sha256(msgspec.json.encode(said)).hexdigest(),
    )  # fmt: skip


def _clean(text: str) -> str:
    visible = "".join(
        " " if one in "\n\r\t" else one for one in text[: 4 * _MOST_DESCRIPTION] if one in "\n\r\t" or not unicodedata.category(one).startswith("C")
    )
    whole = " ".join(visible.split())
    return whole if len(whole) <= _MOST_DESCRIPTION else whole[:_MOST_DESCRIPTION] + "…"
