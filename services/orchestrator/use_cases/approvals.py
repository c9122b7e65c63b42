"""Questions to people (``Approvals`` of the contract): who may ask, see and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import EMPTY, ApprovalRequest, ApprovalStatus
from appliance.identity import roles
from appliance.identity.permissions import Aspect, Resource, Verb
from appliance.identity.principal import MEMBER, Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.approval_rules import checked_rule
from services.orchestrator.domain.events import PolicyChanged
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.questions import Questions
from services.orchestrator.replica import Replica
from services.orchestrator.rights import Rights
from services.orchestrator.views import approval_view

MOST_LISTED: Final = 500
MOST_WAIT_SECONDS: Final = 300.0
MOST_RULES: Final = 500
MOST_EXPIRY_SECONDS: Final = 30 * 86_400.0


class ApprovalDesk:
    """See the module."""

    def __init__(self, replica: Replica, rights: Rights, questions: Questions) -> None:
        self._replica = replica
        self._rights = rights
        self._questions = questions

    async def request(
        self, principal: Principal, task_id: str, token: int, action: str, arguments: msgspec.Raw, context: msgspec.Raw | None = None,
        expires_in_seconds: float | None = None, default_action: str = "reject",
    ) -> ApprovalRequest:  # fmt: skip
        """See the contract."""
        state = self._rights.require_holder(principal, await self._replica.state(task_id))
        self._rights.require(principal, Verb.CREATE, state, Resource.APPROVAL_REQUEST)
        checked_rule(action, None)
        if action.endswith("*") or len(bytes(context or EMPTY)) > 65_536:
            raise ApplianceError("invalid_request", "an action is a plain name; its context has at most 65536 bytes")
        if expires_in_seconds is not None and not 0 < expires_in_seconds <= MOST_EXPIRY_SECONDS:
            raise ApplianceError("invalid_request", "a question stands for more than 0 seconds and at most 30 days")
        return await self._questions.ask(
            task_id, token, action, arguments, context or EMPTY, expires_in_seconds, default_action, by=principal.subject
        )

    async def wait(self, principal: Principal, approval_id: str, timeout_seconds: float) -> ApprovalRequest:
        """See the contract."""
        state = await self._readable(principal, approval_id)
        request = await self._questions.answer(state.id, approval_id, min(max(timeout_seconds, 0.0), MOST_WAIT_SECONDS))
        await self._readable(principal, approval_id)
        return request

    async def list(self, principal: Principal, *, pending_only: bool = True, space: str | None = None, limit: int = 100) -> Sequence[ApprovalRequest]:
        """See the contract."""
        tasks = self._replica.projection.tasks
        ids = dict.fromkeys(self._questions.pending.values()) if pending_only else tasks
        found: list[ApprovalRequest] = []
        for task_id in ids:
            state = tasks.get(task_id)
            if state is None or not state.approvals or (space is not None and state.space != space) or not self._may_read(principal, state):
                continue
            found += [approval_view(state, one) for one in state.approvals if not pending_only or one.status is ApprovalStatus.PENDING]
        return sorted(found, key=lambda one: one.requested_at)[: min(max(limit, 1), MOST_LISTED)]

    async def decide(
        self, principal: Principal, approval_id: str, decision: str, reason: str = "", modified_arguments: msgspec.Raw | None = None,
        grant: str = "once",
    ) -> ApprovalRequest:  # fmt: skip
        """See the contract."""
        state = await self._readable(principal, approval_id)
        self._rights.require(principal, Verb.UPDATE, state, Resource.APPROVAL_REQUEST, Aspect.DECISION)
        if grant == "always" and not self._rules(principal, state.space):
            hint = "approve it once or for the session, or ask an owner"
            raise ApplianceError("forbidden", "what is granted always is a rule of the space, and owners set rules", hint=hint)
        return await self._questions.decide(state.id, approval_id, decision, reason, modified_arguments, grant, by=principal.subject)

    async def policies(self, principal: Principal, space: str) -> Sequence[dict[str, Any]]:
        """See the contract."""
        if not principal.may(space, SpaceRole.READER):
            raise not_found("space")
        known = self._replica.projection.space(space)
        rules: list[dict[str, Any]] = [{"action": action, "mode": mode, "source": "rule"} for action, mode in sorted(known.policies.items())]
        rules += [{"action": action, "mode": "ALWAYS", "source": "grant", "by": by} for action, by in sorted(known.grants.items())]
        return rules + list(self._questions.habits.suggested_rules(space, known.policies))

    async def set_policy(self, principal: Principal, space: str, action: str, mode: str | None) -> None:
        """See the contract. Removing a rule also takes back what was granted for always."""
        if not self._rules(principal, space):
            raise ApplianceError("forbidden", "only owners of the space set rules") if principal.may(space, SpaceRole.READER) else not_found("space")
        checked_rule(action, mode)
        known = self._replica.projection.space(space)
        if mode is not None and len(known.policies) >= MOST_RULES and action not in known.policies:
            raise ApplianceError("too_large", f"a space has at most {MOST_RULES} rules", hint="use * at the end of an action")
        changes = [PolicyChanged(action=action, mode=mode)]
        if mode is None:
            changes.append(PolicyChanged(action=action, mode=None, source="grant"))
        await self._replica.change_space(space, lambda _: changes, by=principal.subject)

    @staticmethod
    def _rules(principal: Principal, space: str) -> bool:
        """Whether the caller sets the space's rules: a person who owns it, an administrator. An operator or agent has no person's rights there."""
        return (principal.is_admin and space in principal.spaces) or (
            MEMBER in principal.roles and roles.SPECIAL.isdisjoint(principal.roles) and principal.may(space, SpaceRole.OWNER)
        )

    def _may_read(self, principal: Principal, state: TaskState) -> bool:
        try:
            self._rights.require(principal, Verb.READ, state, Resource.APPROVAL_REQUEST)
        except ApplianceError:
            return False
        return True

    async def _readable(self, principal: Principal, approval_id: str) -> TaskState:
        if self._questions.task_of(approval_id) is None:  # another replica may have taken the question just now
            await self._replica.sync()
        task_id = self._questions.task_of(approval_id)
        state = await self._replica.state(task_id) if task_id is not None else None
        if state is None or not self._may_read(principal, state):
            raise not_found("approval")
        return state
