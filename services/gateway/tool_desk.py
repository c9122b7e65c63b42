"""What the routes of agents and tools need of the box, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.contracts.router.v1.agents import Agents
from appliance.contracts.tools.v1.api import Toolbox
from appliance.contracts.tools.v1.approvals import ToolApprovals


@dataclass(frozen=True, slots=True)
class ToolDesk:
    """What the routes need of the box; ``sources`` says where tools come from and how they are."""

    toolbox: Toolbox
    agents: Agents
    approvals: ToolApprovals
    sources: Callable[[], Sequence[Mapping[str, object]]] = tuple
