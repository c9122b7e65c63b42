"""Who may do what with knowledge: readers of a space read and query, editors store and delete. A foreign space looks like none."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found


def require_reader(principal: Principal, space: str) -> None:
    """``not_found`` unless the caller may read the space."""
    if not principal.may(space, SpaceRole.READER):
        raise not_found("space")


def require_editor(principal: Principal, space: str) -> None:
    """``not_found`` for a stranger, ``forbidden`` for a reader."""
    require_reader(principal, space)
    if not principal.may(space, SpaceRole.EDITOR):
        raise ApplianceError("forbidden", "changing knowledge needs the role editor", hint="ask an owner of the space for the role")


def readable(principal: Principal, asked: Sequence[str] | None) -> frozenset[str]:
    """The spaces to search; ``not_found`` when a foreign one was named."""
    spaces = principal.readable(None if asked is None else tuple(asked))
    if asked is not None and set(asked) - spaces:
        raise not_found("space")
    return spaces
