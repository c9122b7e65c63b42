"""All calls in one place, without the protocol: a tool or a resource by name, through the chain. Answers are values that msgspec can encode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.mcp.calls import Call, Following, chained
from services.orchestrator.mcp.catalogue import CARDS, NEEDED, handlers
from services.orchestrator.mcp.links import Authenticate, Authorise, LimitRate, Record
from services.orchestrator.mcp.ports import McpDependencies
from services.orchestrator.mcp.resources import ListResources, ReadResource
from services.orchestrator.mcp.settings import McpSettings

_UNKNOWN: Final = "unknown_tool"


class Desk:
    """``await desk.answer(call)``."""

    def __init__(self, needs: McpDependencies, settings: McpSettings) -> None:
        links = (
            Authenticate(needs.authenticator),
            Record(needs.audit, settings.denials_recorded_per_minute),
            LimitRate(settings.rate_factor, settings.max_calls_at_once),
            Authorise(NEEDED),
        )
        self._ends: dict[str, Following] = {
            **handlers(needs, settings),
            "resources/read": ReadResource(needs.tasks, needs.knowledge),
            "resources/list": ListResources(needs.tasks),
        }
        self._chain = chained(links, self._end)

    async def answer(self, call: Call) -> Any:
        """What the tool or resource returns; raises ApplianceError, nothing else."""
        if call.action not in self._ends:  # the audit log names tools that exist only
            call = replace(call, action=_UNKNOWN, arguments={"name": call.action})
        return await self._chain(call)

    async def _end(self, call: Call) -> Any:
        if call.action == _UNKNOWN:
            raise ApplianceError("invalid_request", f"there is no tool {str(call.arguments['name'])[:100]!r}", hint="tools: " + ", ".join(CARDS))
        return await self._ends[call.action](call)
