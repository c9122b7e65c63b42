"""Who calls in the tests of the MCP server, and what it needs of the house in small."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from appliance.contracts.orchestrator.v1.values import KnowledgeEntry
from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found


def agent(subject: str, *spaces: str, requests_per_minute: int = 6000) -> Principal:
    """A principal with the role of Claude, editor in ``spaces``."""
    held = MappingProxyType(dict.fromkeys(spaces, SpaceRole.EDITOR))
    return Principal(subject, "key", roles=frozenset({roles.CLAUDE_OPUS}), spaces=held, requests_per_minute=requests_per_minute)


def person(subject: str, *spaces: str) -> Principal:
    """A member, owner of ``spaces``."""
    return Principal(subject, "user", roles=frozenset({roles.MEMBER}), spaces=MappingProxyType(dict.fromkeys(spaces, SpaceRole.OWNER)))


class KeyRing:
    """Bearers of this test; what is not here is unauthenticated."""

    def __init__(self, **bearers: Principal) -> None:
        self.bearers = dict(bearers)

    async def authenticate(self, bearer: str) -> Principal:
        if bearer not in self.bearers:
            raise ApplianceError("unauthenticated", "the credentials are not valid", hint="use another key")
        return self.bearers[bearer]


@dataclass
class Ledger:
    """Takes audit records and keeps them."""

    records: list[dict[str, Any]] = field(default_factory=list)

    async def append(self, **record: Any) -> int:
        self.records.append(record)
        return len(self.records)

    def outcomes(self, action: str) -> list[str]:
        return [record["outcome"] for record in self.records if record["action"] == action]


class ListedKnowledge:
    """Entries in a dictionary, searched by a word."""

    def __init__(self) -> None:
        self.entries: dict[str, KnowledgeEntry] = {}

    async def store(self, principal, space, entry_type, content, metadata=None, related_entries=(), key=None):
        if not principal.may(space, SpaceRole.EDITOR):
            raise not_found("space")
        entry = KnowledgeEntry(id=f"k_{len(self.entries) + 1}", type=entry_type, content=content, metadata=metadata or {}, space=space)
        self.entries[entry.id] = entry
        return entry

    async def search(self, principal, query, entry_type=None, limit=10, spaces=None):
        found = [one for one in self.entries.values() if query in one.content and one.space in principal.spaces and entry_type in {None, one.type}]
        return found[:limit]

    async def get(self, principal, entry_id):
        entry = self.entries.get(entry_id)
        if entry is None or entry.space not in principal.spaces:
            raise not_found("knowledge entry")
        return entry
