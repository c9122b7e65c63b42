"""What the box and the process of the graphs say to each other: JSON frames with their length in front. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
TEXT_IN_GRAPH: Final = 2_000
"""Characters of an entry's content that queries can see."""


class GraphEntry(msgspec.Struct, frozen=True):
    """An entry as the graph keeps it; ``facts`` as in ``graph_facts``."""

    id: str
    type: str
    text: str
    metadata: str
    key: str | None
    created_at: float
    related: list[str]
    facts: dict[str, Any]


class Request(msgspec.Struct, frozen=True):
    """One order: ``apply``, ``count``, ``reset``, ``neighbours``, ``query``. Which fields count depends on ``do``."""

    number: int
    do: str
    space: str = ""
    folder: str = ""
    wipe: bool = False
    removed: list[str] = []
    entries: list[GraphEntry] = []
    ids: list[str] = []
    cypher: str = ""
    parameters: dict[str, Any] = {}
    limit: int = 0
    seconds: float = 0.0
    result_bytes: int = 0


class Reply(msgspec.Struct, frozen=True):
    """The answer to order ``number``: a value, or a code of ``appliance.kit.errors`` with its message."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    message: str = ""


def pack(frame: Request | Reply) -> bytes:
    """Bytes for the pipe."""
    body = msgspec.json.encode(frame)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
