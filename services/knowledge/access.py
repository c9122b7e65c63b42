"""Who may do what with knowledge: the rows of SEC-2 and its additions (``appliance.identity.permissions``), asked where the entry is.

Readers of a space read and query; operators are none of them. Editors store, and change what they wrote; owners change and delete everything. A foreign
space looks like none.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.identity.permissions import Resource, Verb, may
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found


def require_reader(principal: Principal, space: str) -> None:
    """``not_found`` unless the caller may read the space's knowledge."""
    if not _may_read(principal, space):
        raise not_found("space")


def require_editor(principal: Principal, space: str) -> None:
    """To store: ``not_found`` for a stranger, ``forbidden`` for a reader."""
    require_reader(principal, space)
    if not may(principal, Verb.CREATE, Resource.KNOWLEDGE_ENTRY, space=space):
        raise ApplianceError("forbidden", "changing knowledge needs the role editor", hint="ask an owner of the space for the role")


def require_deleter(principal: Principal, space: str, author: str) -> None:
    """To delete an entry that the caller may read; ``forbidden``."""
    if not may(principal, Verb.DELETE, Resource.KNOWLEDGE_ENTRY, space=space, own=author == principal.account):
        raise ApplianceError("forbidden", "only its author (a person) and owners of the space delete an entry", hint="ask an owner of the space")


def changes_others(principal: Principal, space: str) -> bool:
    """Whether the caller may put an entry in the place of one that another wrote."""
    return may(principal, Verb.UPDATE, Resource.KNOWLEDGE_ENTRY, space=space, own=False)


def readable(principal: Principal, asked: Sequence[str] | None = None) -> frozenset[str]:
    """The spaces to search; ``not_found`` when a foreign one was named."""
    spaces = frozenset(space for space in principal.readable(None if asked is None else tuple(asked)) if _may_read(principal, space))
    if asked is not None and set(asked) - spaces:
        raise not_found("space")
    return spaces


def _may_read(principal: Principal, space: str) -> bool:
    return principal.may(space, SpaceRole.READER) and may(principal, Verb.READ, Resource.KNOWLEDGE_ENTRY, space=space)
