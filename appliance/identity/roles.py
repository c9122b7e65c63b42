"""Global roles: their names, which stay for ever, and who may carry which. What a role may do is ``permissions``.

A principal holds them beside its role per space (``principal.SpaceRole``). Names follow table 2 of document 000 §4.8: ``Agent:ClaudeOpus`` is
``agent:claude_opus`` here; the part after ``agent:`` is the executor's type on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appliance.kit.errors import ApplianceError

ADMIN: Final = "admin"
MEMBER: Final = "member"
CLAUDE_OPUS: Final = "agent:claude_opus"
CLAUDE_SONNET: Final = "agent:claude_sonnet"
LOCAL_LLM: Final = "agent:local_llm"
SPECIALIZED_ML: Final = "agent:specialized_ml"
ALGORITHMIC: Final = "agent:algorithmic"
OPERATOR_1: Final = "operator:level1"
OPERATOR_2: Final = "operator:level2"
SCHEDULER: Final = "system:scheduler"

AGENTS: Final = frozenset({CLAUDE_OPUS, CLAUDE_SONNET, LOCAL_LLM, SPECIALIZED_ML, ALGORITHMIC})
OPERATORS: Final = frozenset({OPERATOR_1, OPERATOR_2})
SPECIAL: Final = AGENTS | OPERATORS | {SCHEDULER}
ALL: Final = SPECIAL | {ADMIN, MEMBER}
_KEY_ROLES: Final = frozenset({"reader", "editor", "owner", ADMIN})


def agent_role(executor_type: str) -> str:
    """The role of executors of a type: ``local_llm`` → ``agent:local_llm``; raises ApplianceError ``invalid_request`` for an unknown type."""
    role = f"agent:{executor_type}"
    if role not in AGENTS:
        raise _invalid(f"there is no executor type {executor_type!r}", _listed(name.removeprefix("agent:") for name in AGENTS))
    return role


def user_role(text: str) -> str:
    """``text`` when a user can carry it; raises ApplianceError ``invalid_request`` otherwise."""
    if text not in ALL - {SCHEDULER}:
        raise _invalid(f"a user cannot have the role {text!r}", _listed(ALL - {SCHEDULER}))
    return text


def key_roles(role: str, space_role: str | None) -> tuple[str, str | None]:
    """What a key is made with: the most it may do in a space (or ``admin``), and the global role it carries, if any.

    Args:
        role: ``reader``, ``editor``, ``owner``, ``admin``, or an agent's or operator's role.
        space_role: the most it may do in a space; only beside an agent's or operator's role, where None means ``reader``.

    Raises:
        ApplianceError: ``invalid_request``.
    """
    if role in AGENTS | OPERATORS:
        chosen = space_role or "reader"
        if chosen not in _KEY_ROLES - {ADMIN}:
            raise _invalid(f"a key cannot have the space role {chosen!r}", "choose reader, editor or owner")
        return chosen, role
    if role not in _KEY_ROLES:
        raise _invalid(f"a key cannot have the role {role!r}", _listed(_KEY_ROLES | AGENTS | OPERATORS))
    if space_role not in {None, role}:
        raise _invalid("a space role goes with an agent's or operator's role only", f"use --role {space_role}, or a role such as {CLAUDE_OPUS}")
    return role, None


def _listed(names: Iterable[str]) -> str:
    return "choose one of " + ", ".join(sorted(names))


def _invalid(message: str, hint: str) -> ApplianceError:
    return ApplianceError("invalid_request", message, hint=hint)
