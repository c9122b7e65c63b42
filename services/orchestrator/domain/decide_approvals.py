"""Rules of approvals and of the effects they permit. Part of ``decide``.

Invariants:
1. An answer holds for exactly one action and one digest of arguments; other arguments are another question.
2. What was approved is begun at most once, unless it is known not to have happened: between ``EffectBegun`` and ``EffectFinished`` nobody knows.
3. A denied question stays denied for the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import NULL, ApprovalStatus, TaskStatus
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.domain.claims import held_by
from services.orchestrator.domain.task_state import ApprovalState, TaskState

MOST_APPROVALS: Final = 1_000
Events = Sequence[ev.TaskHappening]


def request(state: TaskState, command: cm.RequestApproval, _now: float) -> Events:
    """A new question, answered at once when policies say so; a known question is not asked again."""
    held_by(state, command.token)
    if standing(state, command.action, command.arguments_digest) is not None:
        return ()
    if len(state.approvals) >= MOST_APPROVALS:
        raise ApplianceError("task_state", f"a task asks at most {MOST_APPROVALS} questions", hint="split the task")
    asked = ev.ApprovalRequested(
        approval=command.approval, action=command.action, arguments=command.arguments, arguments_digest=command.arguments_digest,
        context=command.context, requested_by=command.requested_by, expires_at=command.expires_at, default_action=command.default_action,
        suggestion=command.suggestion,
    )  # fmt: skip
    if command.verdict is None:
        return (asked,)
    return (asked, ev.ApprovalDecided(approval=command.approval, status=command.verdict, by=command.verdict_by))


def decide(state: TaskState, command: cm.DecideApproval, _now: float) -> Events:
    """The first answer counts; the same answer again changes nothing."""
    approval = state.approval(command.approval)
    if approval is None:
        raise not_found("approval")
    if approval.status is not ApprovalStatus.PENDING:
        if approval.status is command.status and approval.decided_by == command.by:
            return ()
        raise ApplianceError("task_state", f"the approval is {approval.status} already", hint="the first answer counts")
    return (
        ev.ApprovalDecided(
            approval=command.approval, status=command.status, by=command.by, reason=command.reason,
            modified_arguments=command.modified_arguments, grant=command.grant,
        ),
    )  # fmt: skip


def expire(state: TaskState, command: cm.ExpireApproval, now: float) -> Events:
    """The default action, when the time is over and nobody has answered. A paused task's questions wait with it."""
    approval = state.approval(command.approval)
    if state.status is TaskStatus.PAUSED or approval is None or approval.status is not ApprovalStatus.PENDING:
        return ()
    if approval.expires_at is None or approval.expires_at > now:
        return ()
    reason = f"nobody answered; default: {approval.default_action}"
    return (ev.ApprovalDecided(approval=command.approval, status=ApprovalStatus.EXPIRED, by="system:clock", reason=reason),)


def begin_effect(state: TaskState, command: cm.BeginEffect, _now: float) -> Events:
    """Once. What was begun by an earlier claim and not finished may have happened: a person must look."""
    held_by(state, command.token)
    approval = _granted(state, command.approval)
    if approval.effect == "finished":
        return ()
    if approval.effect == "begun":
        hint = "look whether the action happened; then complete or cancel the task by hand"
        raise ApplianceError("effect_unknown", "the approved action was begun before and its outcome is not known", hint=hint, approval=approval.id)
    if state.status is TaskStatus.AWAITING_APPROVAL:
        raise ApplianceError("task_state", "another approval of the task is pending", hint="wait for it")
    return (ev.EffectBegun(approval=command.approval),)


def finish_effect(state: TaskState, command: cm.FinishEffect, _now: float) -> Events:
    """Only what was begun; again: nothing happens."""
    held_by(state, command.token)
    approval = _granted(state, command.approval)
    if approval.effect == "finished":
        return ()
    if approval.effect == "none":
        raise ApplianceError("task_state", "the action was not begun", hint="begin it first")
    return (ev.EffectFinished(approval=command.approval, outcome=command.outcome or msgspec.Raw(NULL)),)


def standing(state: TaskState, action: str, digest: str) -> ApprovalState | None:
    """The question that was asked before about exactly this, unless it was withdrawn with the attempt that asked it."""
    for approval in reversed(state.approvals):
        if approval.action == action and approval.arguments_digest == digest and approval.status is not ApprovalStatus.WITHDRAWN:
            return approval
    return None


def _granted(state: TaskState, approval_id: str) -> ApprovalState:
    approval = state.approval(approval_id)
    if approval is None:
        raise not_found("approval")
    if not approval.is_granted:
        raise ApplianceError("task_state", f"the approval is {approval.status}, not granted", hint="ask first and wait for the answer")
    return approval
