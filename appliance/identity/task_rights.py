"""What follows from the permissions for lists, claims and ownership. Pure; the table itself is ``permissions``."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.identity import roles
from appliance.identity.permissions import Resource, Verb, rows_of
from appliance.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Reach:
    """What a caller may list of one resource: ``everything``, or what lies in ``spaces`` together with its own when ``own``."""

    everything: bool
    spaces: frozenset[str]
    own: bool


def reach(principal: Principal, resource: Resource) -> Reach:
    """What of ``resource`` the caller may list; agrees with ``may(…, READ, …)`` on every single thing."""
    rows = [row for row in rows_of(principal) if row.resource in {None, resource} and Verb.READ in row.verbs]
    everything = any(not row.own and row.space is None for row in rows)
    spaces = frozenset(name for row in rows if row.space and not row.own for name in principal.spaces if principal.may(name, row.space))
    return Reach(everything, spaces, own=any(row.own for row in rows))


def claimable_spaces(principal: Principal) -> frozenset[str]:
    """Spaces whose tasks may be offered to the caller's executors: where an agent is at least a reader; an administrator's all; nobody else's."""
    return principal.readable() if principal.is_admin or is_agent(principal) else frozenset()


def may_register(principal: Principal, executor_type: str) -> bool:
    """Whether the caller may register executors of a type: an agent those of its own, an administrator any."""
    return principal.is_admin or roles.agent_role(executor_type) in principal.roles


def owns_task(principal: Principal, verb: Verb, *, submitter: str, executor_owner: str | None) -> bool:
    """Whether a task is the caller's own.

    An agent's are those assigned to an executor that it registered; to read, its delegated children too. A person's are those submitted by
    them or by one of their keys.

    Args:
        principal: the caller.
        verb: what is to be done to it.
        submitter: ``Principal.account`` of who made the task.
        executor_owner: ``Principal.subject`` of who registered the assigned executor; None when it is not assigned.
    """
    is_submitter = submitter == principal.account
    if is_agent(principal):
        return executor_owner == principal.subject or (verb is Verb.READ and is_submitter)
    return is_submitter


def is_agent(principal: Principal) -> bool:
    """Whether the caller holds an agent's role."""
    return not roles.AGENTS.isdisjoint(principal.roles)
