"""Questions to people inside the box: asking, waiting for the answer, answering. The use cases and executors call this; rights are checked by its callers.

Owns: ids and digests of questions, what rules and grants answer, grants that follow from answers.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import ApprovalRequest, ApprovalStatus
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.approval_rules import ALWAYS, DENY, Habits, judge
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.decide_approvals import standing
from services.orchestrator.domain.events import ApprovalDecided, Envelope, PolicyChanged
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.identifiers import APPROVAL, derived_id
from services.orchestrator.replica import Replica
from services.orchestrator.views import approval_view
from services.orchestrator.waiting import Waiting

MOST_ARGUMENT_BYTES: Final = 65_536
MOST_ANCESTORS: Final = 32
MOST_INDEXED: Final = 200_000
_DECISIONS: Final = {"approve": ApprovalStatus.APPROVED, "reject": ApprovalStatus.REJECTED}
_GRANTS: Final = frozenset({"once", "session", "always"})


def arguments_digest(arguments: msgspec.Raw) -> str:
    """SHA-256 of the arguments as canonical JSON (sorted keys, no spaces).

    Raises:
        ApplianceError: ``invalid_request``, ``too_large``.
    """
    if len(bytes(arguments)) > MOST_ARGUMENT_BYTES:
        raise ApplianceError("too_large", f"arguments of an action have at most {MOST_ARGUMENT_BYTES} bytes", hint="pass a reference instead")
    try:
        value: Any = msgspec.json.decode(arguments)
        canonical = msgspec.json.encode(value, order="deterministic")
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ApplianceError("invalid_request", "the arguments are not JSON") from exc
    return hashlib.sha256(canonical).hexdigest()


class Questions:
    """See the module. Listens to the projection (:meth:`changed`) to learn habits and to index open questions."""

    def __init__(self, replica: Replica, waiting: Waiting, expires_seconds: float) -> None:
        self.pending: dict[str, str] = {}
        self.habits = Habits()
        self._replica = replica
        self._waiting = waiting
        self._expires_seconds = expires_seconds
        self._task_of: dict[str, str] = {}

    def start(self) -> None:
        """Index what the projection has."""
        for state in self._replica.projection.tasks.values():
            self._index(state)

    def changed(self, before: TaskState | None, after: TaskState, envelope: Envelope) -> None:
        """A listener of the projection."""
        if not after.approvals:
            return
        self._index(after)
        for event in envelope.events:
            if isinstance(event, ApprovalDecided):
                approval = after.approval(event.approval)
                if approval is not None:
                    self.habits.learn(after.space, approval.action, event.status, event.by)
        del before

    async def ask(
        self, task_id: str, token: int, action: str, arguments: msgspec.Raw, context: msgspec.Raw, expires_in_seconds: float | None,
        default_action: str, *, by: str,
    ) -> ApprovalRequest:  # fmt: skip
        """Ask, or find the standing question or answer for exactly this."""
        if default_action not in _DECISIONS:
            raise ApplianceError("invalid_request", "a default action is approve or reject")
        digest = arguments_digest(arguments)
        state = await self._replica.state(task_id)
        if state is None:
            raise not_found("task")
        judgement = judge(action, self._replica.projection.space(state.space).policies, *self._grants(state))
        verdict = {ALWAYS: ApprovalStatus.APPROVED, DENY: ApprovalStatus.REJECTED}.get(judgement.mode)
        seconds = self._expires_seconds if expires_in_seconds is None else expires_in_seconds
        if default_action == "approve":  # whoever asks must not answer for people: they have the time of the box, and a rule that says ASK means it
            seconds = max(seconds, self._expires_seconds)
            default_action = "reject" if judgement.is_rule else "approve"
        command = cm.RequestApproval(
            token=token, approval=derived_id(APPROVAL, task_id, action, digest, str(len(state.approvals))), action=action, arguments=arguments,
            arguments_digest=digest, context=context, requested_by=by, expires_at=self._replica.now() + seconds, default_action=default_action,
            suggestion=self.habits.suggestion(state.space, action), verdict=verdict, verdict_by=f"system:policy:{judgement.source}",
        )  # fmt: skip
        state = await self._replica.execute(task_id, None, command, by=by)
        approval = standing(state, action, digest)
        if approval is None:
            raise ApplianceError("stale_claim", "this claim of the task has ended", hint="stop working on it")
        return approval_view(state, approval)

    async def answer(self, task_id: str, approval_id: str, seconds: float) -> ApprovalRequest:
        """The question as soon as it is answered, or as it is after ``seconds``."""
        request = await self._find(task_id, approval_id)
        if request.status is ApprovalStatus.PENDING and seconds > 0:
            await self._waiting.for_key(approval_id, seconds)
            request = await self._find(task_id, approval_id)
        return request

    async def decide(
        self, task_id: str, approval_id: str, decision: str, reason: str, modified_arguments: msgspec.Raw | None, grant: str, *, by: str
    ) -> ApprovalRequest:
        """A person's answer; ``grant`` ``always`` also changes the space."""
        status = _DECISIONS.get(decision)
        if status is None or grant not in _GRANTS or len(reason) > 2000:
            raise ApplianceError("invalid_request", "a decision is approve or reject; a grant is once, session or always; a reason is short")
        if modified_arguments is not None:
            arguments_digest(modified_arguments)
            if status is ApprovalStatus.REJECTED or grant != "once":
                raise ApplianceError("invalid_request", "arguments are changed only by an approval that is granted once")
            status = ApprovalStatus.MODIFIED
        command = cm.DecideApproval(approval=approval_id, status=status, by=by, reason=reason, modified_arguments=modified_arguments, grant=grant)
        state = await self._replica.execute(task_id, None, command, by=by)
        approval = state.approval(approval_id)
        if approval is None:
            raise not_found("approval")
        if grant == "always" and approval.is_granted:
            rule = PolicyChanged(action=approval.action, mode=ALWAYS, source="grant")
            await self._replica.change_space(state.space, lambda space: () if approval.action in space.grants else (rule,), by=by)
        return approval_view(state, approval)

    def task_of(self, approval_id: str) -> str | None:
        """The task that asked; None when nobody in memory did."""
        return self._task_of.get(approval_id)

    async def _find(self, task_id: str, approval_id: str) -> ApprovalRequest:
        state = await self._replica.state(task_id)
        approval = state.approval(approval_id) if state is not None else None
        if state is None or approval is None:
            raise not_found("approval")
        return approval_view(state, approval)

    def _grants(self, state: TaskState) -> tuple[set[str], set[str]]:
        """Actions granted always in the space, and those granted for the session: this task and the tasks it was delegated from."""
        tasks = self._replica.projection.tasks
        here: set[str] = set()
        current: TaskState | None = state
        for _ in range(MOST_ANCESTORS):
            if current is None:
                break
            here |= {one.action for one in current.approvals if one.grant == "session" and one.is_granted}
            current = tasks.get(current.parent) if current.parent is not None else None
        return set(self._replica.projection.space(state.space).grants), here

    def _index(self, state: TaskState) -> None:
        for approval in state.approvals:
            self._task_of[approval.id] = state.id
            if len(self._task_of) > MOST_INDEXED:
                self._forget_oldest()
            if approval.status is ApprovalStatus.PENDING:
                self.pending[approval.id] = state.id
            else:
                self.pending.pop(approval.id, None)

    def _forget_oldest(self) -> None:
        """Answers of tasks that left memory long ago are found through their tasks; open questions stay."""
        oldest = next(iter(self._task_of))
        task_id = self._task_of.pop(oldest)
        if oldest in self.pending:
            self._task_of[oldest] = task_id
