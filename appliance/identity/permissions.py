"""Who may do what with tasks, checkpoints, knowledge, approval requests and executors: SEC-2 as data, and the one function that reads it.

Owns: the table (document 000 §4.8, table 2), what this house adds to it, the answers. ``docs/acl.md`` says why each addition is there.
Does not own: whose a task is and what may be listed (``task_rights``), documents and search (``docs/acl.md``, the access filter), users and spaces (``directory``), the audit of refusals (who asks).

Invariants:

- Nothing is allowed that no row allows. Rows only ever add.
- The rows of SEC-2 are exactly the table's; additions are in a tuple of their own and :func:`granted` says which kind answered.
- A member's rights are those of its role in the space, and only a member has them: an agent or operator that belongs to a space does not
  gain a person's rights over its tasks.
- An update without a named aspect is an update of everything; a row limited to one aspect does not allow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found

ANY_AGENT: Final = "agent:*"


class Verb(StrEnum):
    """What is done."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"


class Resource(StrEnum):
    """What it is done to."""

    TASK = "Task"
    CHECKPOINT = "Checkpoint"
    KNOWLEDGE_ENTRY = "KnowledgeEntry"
    APPROVAL_REQUEST = "ApprovalRequest"
    EXECUTOR = "Executor"


class Aspect(StrEnum):
    """Which part of it an update changes."""

    PRIORITY = "priority"
    ASSIGNMENT = "assignment"
    STATUS = "status"
    DECISION = "decision"
    CONTENT = "content"


ASPECTS: Final[Mapping[Resource, frozenset[Aspect]]] = {
    Resource.TASK: frozenset({Aspect.PRIORITY, Aspect.ASSIGNMENT, Aspect.STATUS, Aspect.CONTENT}),
    Resource.CHECKPOINT: frozenset({Aspect.CONTENT}),
    Resource.KNOWLEDGE_ENTRY: frozenset({Aspect.CONTENT}),
    Resource.APPROVAL_REQUEST: frozenset({Aspect.DECISION}),
    Resource.EXECUTOR: frozenset({Aspect.STATUS, Aspect.CONTENT}),
}
_NOUNS: Final[Mapping[Resource, str]] = {
    Resource.TASK: "task",
    Resource.CHECKPOINT: "checkpoint",
    Resource.KNOWLEDGE_ENTRY: "knowledge entry",
    Resource.APPROVAL_REQUEST: "approval request",
    Resource.EXECUTOR: "executor",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """One row: ``role`` may do ``verbs`` to ``resource``.

    Attributes:
        role: a global role, or ``agent:*``.
        resource: None for every one.
        own: only where the thing is the caller's own (``task_rights.owns_task``).
        aspect: the only thing an update may change; None for all.
        space: role in the thing's space that the caller needs as well; None when it does not matter where it lies.
    """

    role: str
    resource: Resource | None
    verbs: frozenset[Verb]
    own: bool = False
    aspect: Aspect | None = None
    space: SpaceRole | None = None

    def allows(self, principal: Principal, verb: Verb, resource: Resource, *, space: str | None, own: bool, aspect: Aspect | None) -> bool:
        """Whether this row allows it, given that the caller has the role."""
        if self.resource is None:
            return verb in self.verbs
        is_within = self.resource == resource and verb in self.verbs and (own or not self.own)
        if verb is Verb.UPDATE:
            is_within &= aspect is None or aspect in ASPECTS[resource]
            is_within &= self.aspect is None or self.aspect == aspect
        return is_within and (self.space is None or (space is not None and principal.may(space, self.space)))


def _row(
    role: str, resource: Resource | None, verbs: str, *, own: bool = False, aspect: Aspect | None = None, space: SpaceRole | None = None
) -> Grant:
    return Grant(role, resource, frozenset(map(Verb, verbs.split())), own, aspect, space)


_READER, _EDITOR, _OWNER = SpaceRole.READER, SpaceRole.EDITOR, SpaceRole.OWNER

SEC_2: Final = (
    _row(roles.CLAUDE_OPUS, Resource.TASK, "read update", own=True),
    _row(roles.LOCAL_LLM, Resource.CHECKPOINT, "create", own=True),
    _row(ANY_AGENT, Resource.KNOWLEDGE_ENTRY, "read", space=_READER),  # not "(all)": the access filter on spaces stays
    _row(roles.OPERATOR_1, Resource.TASK, "read"),
    _row(roles.OPERATOR_1, Resource.TASK, "update", aspect=Aspect.PRIORITY),
    _row(roles.OPERATOR_2, Resource.APPROVAL_REQUEST, "read"),
    _row(roles.OPERATOR_2, Resource.APPROVAL_REQUEST, "update", aspect=Aspect.DECISION),
    _row(roles.OPERATOR_2, Resource.EXECUTOR, "update", aspect=Aspect.STATUS),
    _row(roles.ADMIN, None, "create read update delete"),
    _row(roles.SCHEDULER, Resource.TASK, "read"),
    _row(roles.SCHEDULER, Resource.TASK, "update", aspect=Aspect.ASSIGNMENT),
)

ADDITIONS: Final = (
    # agents: what the nine MCP tools do
    _row(ANY_AGENT, Resource.TASK, "create read update", own=True),  # own to create: a child of an own task
    _row(ANY_AGENT, Resource.CHECKPOINT, "create read", own=True),
    _row(ANY_AGENT, Resource.APPROVAL_REQUEST, "create read", own=True),
    _row(ANY_AGENT, Resource.KNOWLEDGE_ENTRY, "create", space=_EDITOR),
    _row(ANY_AGENT, Resource.EXECUTOR, "create read delete", own=True),
    _row(ANY_AGENT, Resource.EXECUTOR, "update", own=True, aspect=Aspect.CONTENT),
    # operators: nobody can change what they cannot see
    _row(roles.OPERATOR_2, Resource.EXECUTOR, "read"),
    # people
    _row(roles.MEMBER, Resource.TASK, "read", space=_READER),
    _row(roles.MEMBER, Resource.CHECKPOINT, "read", space=_READER),
    _row(roles.MEMBER, Resource.APPROVAL_REQUEST, "read", space=_READER),
    _row(roles.MEMBER, Resource.KNOWLEDGE_ENTRY, "read", space=_READER),
    _row(roles.MEMBER, Resource.TASK, "create", space=_EDITOR),
    _row(roles.MEMBER, Resource.TASK, "update", own=True, space=_EDITOR),
    _row(roles.MEMBER, Resource.KNOWLEDGE_ENTRY, "create", space=_EDITOR),
    _row(roles.MEMBER, Resource.KNOWLEDGE_ENTRY, "update delete", own=True, space=_EDITOR),
    _row(roles.MEMBER, Resource.TASK, "update", space=_OWNER),
    _row(roles.MEMBER, Resource.APPROVAL_REQUEST, "update", aspect=Aspect.DECISION, space=_OWNER),
    _row(roles.MEMBER, Resource.KNOWLEDGE_ENTRY, "update delete", space=_OWNER),
)


def _rows_for(role: str) -> tuple[Grant, ...]:
    names = {role, ANY_AGENT} if role in roles.AGENTS else {role}
    return tuple(row for row in SEC_2 + ADDITIONS if row.role in names)


_BY_ROLE: Final[Mapping[str, tuple[Grant, ...]]] = {role: _rows_for(role) for role in roles.ALL}


def may(principal: Principal, verb: Verb, resource: Resource, *, space: str | None = None, own: bool = False, aspect: Aspect | None = None) -> bool:
    """Whether ``principal`` may do ``verb`` to a ``resource``.

    Args:
        principal: the caller.
        verb: what is done.
        resource: to what.
        space: the space in which the thing lies (to create: will lie); None when it has none (executors).
        own: whether it is the caller's own (``task_rights.owns_task``; an executor registered, an entry stored by the caller). For what hangs on a task
            (checkpoint, approval request, child task): whether the task is.
        aspect: which part an update changes; ignored with other verbs.
    """
    return any(row.allows(principal, verb, resource, space=space, own=own, aspect=aspect) for row in rows_of(principal))


def rows_of(principal: Principal) -> tuple[Grant, ...]:
    """Every row that speaks of the caller: who is an agent or operator has no member's rights besides."""
    return _rows_held(principal.roles)


@lru_cache(maxsize=256)  # asked several times for every task; there are few combinations of roles
def _rows_held(held: frozenset[str]) -> tuple[Grant, ...]:
    known = held & roles.ALL
    effective = known - {roles.MEMBER} if known & roles.SPECIAL else known
    return tuple(row for role in sorted(effective) for row in _BY_ROLE[role])


def granted(
    principal: Principal, verb: Verb, resource: Resource, *, space: str | None = None, own: bool = False, aspect: Aspect | None = None
) -> Grant | None:
    """The row that allows it, of the table before any addition; None when none does."""
    allowing = [row for row in rows_of(principal) if row.allows(principal, verb, resource, space=space, own=own, aspect=aspect)]
    return min(allowing, key=lambda row: row in ADDITIONS, default=None)


def require(
    principal: Principal,
    verb: Verb,
    resource: Resource,
    *,
    space: str | None = None,
    own: bool = False,
    aspect: Aspect | None = None,
    what: str | None = None,
) -> None:
    """As :func:`may`, with the same arguments, for callers that go on only when it is allowed.

    ``what`` names the thing when it does not exist for this caller, ``task 't_…'``: the answer must be the same as for an absent one.

    Raises:
        ApplianceError: ``not_found`` when the caller may not even know of it, ``forbidden`` otherwise.
    """
    if may(principal, verb, resource, space=space, own=own, aspect=aspect):
        return
    if not _is_visible(principal, verb, resource, space=space, own=own):
        raise not_found(what or _container(verb, resource))
    changed = f"the {aspect} of this" if aspect is not None and verb is Verb.UPDATE else "this" if verb is not Verb.CREATE else "such a"
    raise ApplianceError(
        "forbidden", f"{principal.subject} may not {verb} {changed} {_NOUNS[resource]}", hint="ask an owner of the space, or an administrator"
    )


def _is_visible(principal: Principal, verb: Verb, resource: Resource, *, space: str | None, own: bool) -> bool:
    """Whether the caller may know of the thing; to create, of where it would be."""
    if verb is not Verb.CREATE:
        return verb is not Verb.READ and may(principal, Verb.READ, resource, space=space, own=own)
    if resource in {Resource.CHECKPOINT, Resource.APPROVAL_REQUEST}:
        return may(principal, Verb.READ, Resource.TASK, space=space, own=own)
    return resource is Resource.EXECUTOR or space in principal.spaces


def _container(verb: Verb, resource: Resource) -> str:
    if verb is not Verb.CREATE:
        return _NOUNS[resource]
    return "task" if resource in {Resource.CHECKPOINT, Resource.APPROVAL_REQUEST} else "space"
