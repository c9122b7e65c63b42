"""The caller, as every layer sees it. Pure data and pure questions; no storage, no tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Literal

from appliance.identity import roles as global_roles

PrincipalKind = Literal["user", "key", "service"]


class SpaceRole(IntEnum):
    """What a principal may do in one space; each level includes those below."""

    READER = 1
    EDITOR = 2
    OWNER = 3

    @classmethod
    def parse(cls, text: str) -> SpaceRole:
        """Role by its lower-case name; raises KeyError for anything else."""
        return cls[text.upper()]


ADMIN: Final = global_roles.ADMIN
MEMBER: Final = global_roles.MEMBER
_NO_SPACES: Final[Mapping[str, SpaceRole]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    Attributes:
        subject: stable id, ``user:anna`` or ``key:k_3f…``; the name in the audit log.
        kind: how it authenticated.
        roles: global roles (``roles``): ``admin``, ``member``, an agent's, an operator's or the scheduler's.
        groups: group names, for later mapping from OIDC.
        spaces: space name → role, already resolved; a space that is not here does not exist for this caller.
            Administrators are given every space explicitly when they authenticate.
        requests_per_minute: rate limit of this caller.
        behind: who answers for what a key of a person does, ``user:anna``; None for everyone who acts for themselves, agents included.
    """

    subject: str
    kind: PrincipalKind
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    spaces: Mapping[str, SpaceRole] = field(default_factory=lambda: _NO_SPACES)
    requests_per_minute: int = 600
    behind: str | None = None

    @property
    def account(self) -> str:
        """Whose the things are that this caller makes: the same for a person and for their keys, an agent's own."""
        return self.behind or self.subject

    @property
    def is_admin(self) -> bool:
        """May manage users, spaces and keys."""
        return ADMIN in self.roles

    def may(self, space: str, role: SpaceRole) -> bool:
        """Whether the caller has at least ``role`` in ``space``."""
        held = self.spaces.get(space)
        return held is not None and held >= role

    def readable(self, asked: tuple[str, ...] | None = None) -> frozenset[str]:
        """Spaces the caller may read, cut to ``asked`` when given.

        Foreign names are dropped silently here; an edge that was *asked* for a foreign space answers ``not_found`` itself.
        """
        own = frozenset(name for name, role in self.spaces.items() if role >= SpaceRole.READER)
        return own if asked is None else own & frozenset(asked)
