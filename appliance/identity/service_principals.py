"""Principals of the box's own services, which hold no credential: whoever can build one already runs inside. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from appliance.identity import roles
from appliance.identity.principal import Principal, SpaceRole
from appliance.identity.settings import KEY_REQUESTS_PER_MINUTE
from appliance.kit.errors import ApplianceError

_EXECUTOR_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}")


def scheduler_principal() -> Principal:
    """Who assigns tasks: ``system:scheduler`` reads every task and changes its assignment, nothing else."""
    return Principal(roles.SCHEDULER, "service", roles=frozenset({roles.SCHEDULER}), requests_per_minute=KEY_REQUESTS_PER_MINUTE)


def executor_principal(executor_id: str, executor_type: str, spaces: Iterable[str]) -> Principal:
    """An executor inside the box: ``service:executor:<id>``, the agent role of its type, editor in ``spaces``.

    Spaces are named one by one, as an administrator's are: build it anew when one was added (``Directory.executor_principal`` reads them).

    Args:
        executor_id: as it registers itself, 1 to 100 of ``A-Z a-z 0-9 . _ : @ -``.
        executor_type: ``claude_opus``, ``claude_sonnet``, ``local_llm``, ``specialized_ml`` or ``algorithmic``.
        spaces: all spaces there are.

    Raises:
        ApplianceError: ``invalid_request`` for a bad id or an unknown type.
    """
    if _EXECUTOR_ID.fullmatch(executor_id) is None:
        raise ApplianceError("invalid_request", "an executor's id has 1 to 100 of A-Z a-z 0-9 . _ : @ -", hint="give it another id")
    return Principal(
        f"service:executor:{executor_id}",
        "service",
        roles=frozenset({roles.agent_role(executor_type)}),
        spaces=MappingProxyType(dict.fromkeys(spaces, SpaceRole.EDITOR)),
        requests_per_minute=KEY_REQUESTS_PER_MINUTE,
    )
