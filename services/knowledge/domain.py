"""Values of the knowledge base and the limits of what may come into it. Pure; no storage.

An entry belongs to one space. Its relations stay inside that space, so nobody learns of foreign entries through them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry, KnowledgeType
from appliance.kit.errors import ApplianceError

MAX_CONTENT_BYTES: Final = 256 * 1024
MAX_METADATA_BYTES: Final = 32 * 1024
MAX_METADATA_DEPTH: Final = 8
MAX_RELATED: Final = 64
MAX_KEY_CHARACTERS: Final = 200
MAX_QUERY_CHARACTERS: Final = 20_000
MAX_LIMIT: Final = 100
OWN_KEYS: Final = ("execution:", "failure:", "pattern:")
"""Beginnings of keys that only the specialised methods use: a caller's entry cannot take the place of a task's history."""
_ENTRY_ID: Final = re.compile(r"k_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to be kept, checked.

    Attributes:
        facts: what it states about tasks, see ``graph_facts``; empty for most.
        embedding: float32 bytes of the unit vector of ``content``; None without a model.
        model: identity of the model that made ``embedding``; empty without.
        author: ``Principal.account`` of who stores it.
        over_others: whether it may take the place of what another wrote.
    """

    space: str
    type: KnowledgeType
    content: str
    metadata: dict[str, Any]
    related: tuple[str, ...]
    key: str | None
    facts: dict[str, Any]
    embedding: bytes | None = None
    model: str = ""
    author: str = ""
    over_others: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as the truth has it; ``row_id`` names it in the indexes of words and vectors, ``entry.id`` in the graph."""

    row_id: int
    entry: KnowledgeEntry
    key: str | None
    facts: dict[str, Any]
    embedding: bytes | None
    model: str
    version: int
    author: str


@dataclass(frozen=True, slots=True)
class Removal:
    """An entry that is gone; ``row_id`` None: everything that its space held."""

    version: int
    space: str
    row_id: int | None
    entry_id: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What an index has to apply, removals first, to be at version ``upto``; ``complete`` when nothing newer is known."""

    removals: Sequence[Removal]
    records: Sequence[Record]
    upto: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that an index found; a higher score is better."""

    row_id: int
    score: float


def check_draft(
    space: str, entry_type: KnowledgeType | str, content: str, metadata: dict[str, Any] | None, related: Sequence[str], key: str | None,
) -> Draft:  # fmt: skip
    """A draft within all limits.

    Raises:
        ApplianceError: ``invalid_request``, or ``too_large`` for content or metadata over their limits.
    """
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isprintable() and not key.startswith(OWN_KEYS)):
        raise _invalid(f"a key has 1 to {MAX_KEY_CHARACTERS} printable characters and does not begin with {', '.join(OWN_KEYS)}")
    return Draft(space, checked_type(entry_type), checked_content(content), checked_metadata(metadata), checked_related(related), key, {})


def checked_type(entry_type: KnowledgeType | str) -> KnowledgeType:
    """The type, also given by its name."""
    try:
        return KnowledgeType(entry_type)
    except ValueError as error:
        raise ApplianceError("invalid_request", "unknown type of knowledge", hint="types: " + ", ".join(KnowledgeType)) from error


def checked_content(content: str) -> str:
    """Text that is not empty, not too large, and can be written as UTF-8."""
    if not isinstance(content, str) or not content.strip() or "\x00" in content:
        raise _invalid("content must be text, not empty and without NUL characters")
    if len(content) > MAX_CONTENT_BYTES or len(_utf8(content)) > MAX_CONTENT_BYTES:
        raise ApplianceError("too_large", f"content is over {MAX_CONTENT_BYTES // 1024} KiB", hint="upload it as a document, or store its parts")
    return content


def checked_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """A JSON object of bounded size and depth, as a copy that the caller cannot change any more."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or too_deep(metadata, MAX_METADATA_DEPTH):
        raise _invalid(f"metadata must be a JSON object at most {MAX_METADATA_DEPTH} levels deep")
    try:
        encoded = msgspec.json.encode(metadata)
        copy = msgspec.json.decode(encoded, type=dict[str, Any])
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise _invalid("metadata must be a JSON object") from error
    if len(encoded) > MAX_METADATA_BYTES:
        raise ApplianceError("too_large", f"metadata is over {MAX_METADATA_BYTES // 1024} KiB", hint="put long text into the content")
    return copy


def checked_related(related: Sequence[str]) -> tuple[str, ...]:
    """Distinct ids of entries; whether they exist is the store's question."""
    distinct = tuple(dict.fromkeys(related)) if not isinstance(related, str) else ()
    if isinstance(related, str) or len(distinct) > MAX_RELATED or not all(isinstance(one, str) and _ENTRY_ID.fullmatch(one) for one in distinct):
        raise _invalid(f"related entries are at most {MAX_RELATED} ids of entries (k_…)")
    return distinct


def is_entry_id(text: str) -> bool:
    """Whether ``text`` has the form of an entry's id."""
    return _ENTRY_ID.fullmatch(text) is not None


def too_deep(value: object, most: int) -> bool:
    """Whether containers nest more than ``most`` levels; never recurses deeper than that."""
    if isinstance(value, dict):
        return most == 0 or any(too_deep(child, most - 1) for child in value.values())
    if isinstance(value, list | tuple):
        return most == 0 or any(too_deep(child, most - 1) for child in value)
    return False


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _invalid("content holds half a character (a lone surrogate)") from error


def _invalid(message: str) -> ApplianceError:
    return ApplianceError("invalid_request", message, hint="correct the request")
