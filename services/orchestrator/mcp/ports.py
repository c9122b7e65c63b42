"""What the MCP server needs from the house: the contracts it translates to, who a bearer is, and the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from appliance.audit.ports import Auditor
from appliance.contracts.knowledge.v1.api import KnowledgeBase
from appliance.contracts.orchestrator.v1.api import Approvals, ClaimState, Executors, Tasks, Work
from appliance.identity.principal import Principal


class Authenticator(Protocol):
    """Bearer → principal; ``appliance.identity.service.Identity`` is one, and it records denials itself."""

    async def authenticate(self, bearer: str) -> Principal:
        """Who presents ``bearer`` (an access token or an ``sk-`` key); raises ``unauthenticated``."""
        ...


@dataclass(frozen=True, slots=True)
class McpDependencies:
    """Everything the tools and resources call. ``knowledge`` None: the two tools answer ``unavailable``."""

    tasks: Tasks
    work: Work
    claims: ClaimState
    approvals: Approvals
    executors: Executors
    knowledge: KnowledgeBase | None
    authenticator: Authenticator
    audit: Auditor
