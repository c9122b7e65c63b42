"""Approvals of tool calls in chats, version 1. Tasks have approvals of their own (``contracts.orchestrator``): a chat has no claim that they could hang on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from appliance.identity.principal import Principal

Approver = Literal["caller", "admin"]
Decision = Literal["approve", "reject"]


class ToolApproval(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One request: this caller through this agent, this tool, exactly these arguments. Times are Unix seconds.

    Attributes:
        account, subject: whose call it is.
        agent: that asked; another one with the same call asks again.
        digest: of tool and arguments: what is approved.
        arguments: JSON for whoever decides, cut when it is long.
        approver: who may decide: the person themselves or an administrator, or only another administrator.
        status: ``pending``, ``approved``, ``rejected``, ``used``.
    """

    id: str
    account: str
    subject: str
    tool: str
    digest: str
    arguments: str
    approver: Approver
    requested_at: float
    expires_at: float
    thread_id: str = ""
    agent: str = ""
    status: Literal["pending", "approved", "rejected", "used"] = "pending"
    decided_by: str = ""


class ToolApprovals(Protocol):
    """The queue."""

    def list(self, principal: Principal, *, pending_only: bool = True) -> Sequence[ToolApproval]:
        """The caller's own, an administrator's all; oldest first."""
        ...

    async def decide(self, principal: Principal, approval_id: str, decision: Decision) -> ToolApproval:
        """Durable when it returns; the same decision again changes nothing.

        Raises:
            ApplianceError: ``not_found``, ``forbidden`` (not yours to decide; keys of people and agents never are), ``conflict`` (decided otherwise, expired).
        """
        ...
