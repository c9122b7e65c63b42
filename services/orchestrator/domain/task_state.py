"""A task as the fold of its events. Owns: the state and ``apply``. Does not own: which events may happen (``decide_*``).

Invariants (driven by the hypothesis machine in ``tests/unit/orchestrator``):
1. ``completed`` is final. ``failed`` is final unless a ``Reopened`` follows. Nothing but ``Compacted`` and ``TaskDropped`` is written behind it, and
   nothing at all behind ``TaskDropped``.
2. ``executor`` is set while a claim holds (and stays on the task it completed); ``token`` is the sequence of the envelope that made the newest claim, so it only grows.
3. ``progress`` never falls within a claim. Steps and checkpoints are never forgotten.
4. A status outside ``awaiting_approval`` has no pending approval, except ``paused``, where one may wait.
5. ``seq`` is the sequence of the last envelope on the task's subject: the expected value of the next compare-and-set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import EMPTY, NULL, ApprovalStatus, ExecutorType, OptionalRaw, RetryPolicy, TaskError, TaskStatus
from services.orchestrator.domain import events as ev

LONGEST_JITTER: Final = 1.25
"""Above the jitter of a backoff (``decide.backoff``)."""
_READY: Final = frozenset({TaskStatus.PENDING, TaskStatus.REQUIRES_CONTINUATION})
_HELD: Final = frozenset({TaskStatus.ASSIGNED, TaskStatus.EXECUTING, TaskStatus.AWAITING_APPROVAL})


class ApprovalState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question of the task and its answer. ``effect``: ``none`` → ``begun`` → ``finished``."""

    id: str
    action: str
    arguments: msgspec.Raw
    arguments_digest: str
    context: msgspec.Raw
    requested_by: str
    requested_at: float
    expires_at: float | None
    default_action: str
    suggestion: str = ""
    status: ApprovalStatus = ApprovalStatus.PENDING
    decided_by: str | None = None
    decided_at: float | None = None
    reason: str = ""
    modified_arguments: OptionalRaw = None
    grant: str = "once"
    effect: str = "none"
    outcome: msgspec.Raw = NULL

    @property
    def is_granted(self) -> bool:
        """The action may be carried out."""
        if self.status is ApprovalStatus.EXPIRED:
            return self.default_action == "approve"
        return self.status in {ApprovalStatus.APPROVED, ApprovalStatus.MODIFIED}


class CheckpointRef(msgspec.Struct, frozen=True):
    """Where a checkpoint is: its id is its name in the object store."""

    id: str
    number: int
    at: float
    base: str | None
    size_bytes: int
    digest: str


class TaskState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Everything about one task. ``attempts`` counts failures that were reported, ``losses`` claims that ended in silence.

    There are many: values have their own bytes (:func:`owned`), names that many tasks share exist once.
    """

    id: str
    type: str
    space: str
    owner: str
    description: str
    input_data: msgspec.Raw
    priority: int
    deadline: float | None
    dependencies: tuple[str, ...]
    key: str | None
    executor_type: ExecutorType | None
    output_schema: OptionalRaw = None
    retry: RetryPolicy
    timeout_seconds: float | None
    metadata: msgspec.Raw
    parent: str | None
    forked_from: str | None
    created_at: float
    updated_at: float
    seq: int
    status: TaskStatus = TaskStatus.PENDING
    executor: str | None = None
    last_executor: str | None = None
    incarnation: int = 0
    token: int = 0
    lease_until: float | None = None
    assigned_at: float | None = None
    claims: int = 0
    attempts: int = 0
    losses: int = 0
    not_before: float | None = None
    progress: float = 0.0
    note: str = ""
    steps: dict[str, msgspec.Raw] = {}
    checkpoints: tuple[CheckpointRef, ...] = ()
    restart_from: str | None = None
    approvals: tuple[ApprovalState, ...] = ()
    models: tuple[str, ...] = ()
    result: msgspec.Raw = NULL
    metrics: msgspec.Raw = EMPTY
    error: TaskError | None = None
    entries: int = 0
    dropped: bool = False

    @property
    def is_terminal(self) -> bool:
        """Completed or failed."""
        return self.status is TaskStatus.COMPLETED or self.status is TaskStatus.FAILED

    @property
    def is_claimable(self) -> bool:
        """Waits for an executor (its dependencies and ``not_before`` apart)."""
        return self.status in _READY

    @property
    def is_held(self) -> bool:
        """An executor has it."""
        return self.executor is not None and self.status in _HELD

    def waits(self, now: float) -> bool:
        """Its backoff is not over. One that is further off than a backoff can be comes from a clock that was wrong, and does not count."""
        return self.not_before is not None and now < self.not_before <= now + self.retry.most_seconds * LONGEST_JITTER

    def approval(self, approval_id: str) -> ApprovalState | None:
        """By id."""
        return next((approval for approval in self.approvals if approval.id == approval_id), None)

    @property
    def pending_approvals(self) -> tuple[ApprovalState, ...]:
        """Those without an answer."""
        return tuple(approval for approval in self.approvals if approval.status is ApprovalStatus.PENDING)


def apply_envelope(state: TaskState | None, task_id: str, envelope: ev.Envelope, seq: int) -> TaskState:
    """``state`` after one envelope of its subject. Events of other aggregates are a TypeError."""
    for event in envelope.events:
        if isinstance(event, ev.TaskCreated):
            state = _created(task_id, event, envelope.at, seq)
        elif isinstance(event, ev.Compacted):
            state = msgspec.structs.replace(_STATE.decode(event.state), entries=0)
        elif state is None:
            raise TypeError(f"{type(event).__name__} before TaskCreated on {task_id}")
        else:
            state = msgspec.structs.replace(state, **_CHANGES[type(event)](state, event, envelope.at, seq))
    if state is None:
        raise TypeError(f"an empty envelope on {task_id}")
    return msgspec.structs.replace(state, seq=seq, updated_at=envelope.at, entries=state.entries + 1)


def _created(task_id: str, event: ev.TaskCreated, at: float, seq: int) -> TaskState:
    copied = event.checkpoint
    return TaskState(
        id=task_id, type=sys.intern(event.type), space=sys.intern(event.space), owner=sys.intern(event.owner), description=event.description,
        input_data=owned(event.input_data),
        priority=event.priority, deadline=event.deadline, dependencies=event.dependencies, key=event.key, executor_type=event.executor_type,
        output_schema=None if event.output_schema is None else owned(event.output_schema), retry=event.retry, timeout_seconds=event.timeout_seconds,
        metadata=owned(event.metadata), parent=event.parent, forked_from=event.forked_from, created_at=at, updated_at=at, seq=seq,
        steps=_owned_steps(event.steps),
        restart_from=copied.checkpoint if copied is not None else None,
        checkpoints=(_checkpoint_ref(copied, at),) if copied is not None else (),
    )  # fmt: skip


def owned(value: msgspec.Raw) -> msgspec.Raw:
    """The same in bytes of its own: what was decoded keeps the whole entry, or part of a snapshot, in memory."""
    return EMPTY if value == EMPTY else value.copy()


def owned_state(state: TaskState) -> TaskState:
    """A state of a snapshot, with nothing of the snapshot's bytes."""
    schema = None if state.output_schema is None else owned(state.output_schema)
    return msgspec.structs.replace(
        state, type=sys.intern(state.type), space=sys.intern(state.space), owner=sys.intern(state.owner), input_data=owned(state.input_data),
        output_schema=schema, metadata=owned(state.metadata), steps=_owned_steps(state.steps), result=owned(state.result), metrics=owned(state.metrics),
    )  # fmt: skip


def _owned_steps(steps: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {name: owned(result) for name, result in steps.items()} if steps else steps


_RELEASED: Final[dict[str, Any]] = {"executor": None, "lease_until": None, "assigned_at": None}


def _assigned(state: TaskState, event: ev.Assigned, at: float, seq: int) -> dict[str, Any]:
    return {
        "status": TaskStatus.EXECUTING if event.started else TaskStatus.ASSIGNED,
        "executor": (executor := sys.intern(event.executor)), "last_executor": executor, "incarnation": event.incarnation, "token": seq, "lease_until": event.lease_until, "assigned_at": at,
        "claims": state.claims + 1, "not_before": None, "progress": 0.0, "models": event.models or state.models,
    }  # fmt: skip


def _progress(state: TaskState, event: ev.ProgressReported, _at: float, _seq: int) -> dict[str, Any]:
    changes: dict[str, Any] = {"lease_until": max(event.lease_until, state.lease_until or 0.0)}
    if state.status is TaskStatus.ASSIGNED:
        changes["status"] = TaskStatus.EXECUTING
    if event.progress is not None:
        changes["progress"] = max(event.progress, state.progress)
    if event.note is not None:
        changes["note"] = event.note
    return changes


def _step(state: TaskState, event: ev.StepFinished, _at: float, _seq: int) -> dict[str, Any]:
    changes: dict[str, Any] = {"steps": {**state.steps, event.step: owned(event.result)}}
    if state.status is TaskStatus.ASSIGNED:
        changes["status"] = TaskStatus.EXECUTING
    return changes


def _checkpoint(state: TaskState, event: ev.CheckpointSaved, at: float, _seq: int) -> dict[str, Any]:
    return {"checkpoints": (*state.checkpoints, _checkpoint_ref(event, at)), "restart_from": event.checkpoint}


def _checkpoint_ref(event: ev.CheckpointSaved, at: float) -> CheckpointRef:
    return CheckpointRef(event.checkpoint, event.number, at, event.base, event.size_bytes, event.digest)


def _expired(state: TaskState, event: ev.LeaseExpired, _at: float, _seq: int) -> dict[str, Any]:
    waits = state.status is TaskStatus.AWAITING_APPROVAL
    return {**_RELEASED, "status": state.status if waits else TaskStatus.PENDING, "losses": state.losses + 1, "not_before": event.not_before}


def _attempt_failed(state: TaskState, event: ev.AttemptFailed, _at: float, _seq: int) -> dict[str, Any]:
    return {
        **_RELEASED, "status": TaskStatus.PENDING, "attempts": state.attempts + 1, "error": event.error, "not_before": event.not_before,
        "approvals": _withdrawn(state),
    }  # fmt: skip


def _continuation(state: TaskState, event: ev.ContinuationRequired, _at: float, _seq: int) -> dict[str, Any]:
    return {
        **_RELEASED, "status": TaskStatus.REQUIRES_CONTINUATION, "note": event.reason, "restart_from": event.checkpoint or state.restart_from,
        "approvals": _withdrawn(state),
    }  # fmt: skip


def _completed(state: TaskState, event: ev.TaskCompleted, _at: float, _seq: int) -> dict[str, Any]:
    return {
        "status": TaskStatus.COMPLETED, "result": owned(event.result), "metrics": owned(event.metrics), "progress": 1.0, "lease_until": None, "error": None,
        "approvals": _withdrawn(state),
    }  # fmt: skip


def _failed(state: TaskState, event: ev.TaskFailed, _at: float, _seq: int) -> dict[str, Any]:
    return {"status": TaskStatus.FAILED, "error": event.error, "lease_until": None, "not_before": None, "approvals": _withdrawn(state)}


def _reopened(_state: TaskState, event: ev.Reopened, _at: float, _seq: int) -> dict[str, Any]:
    return {**_RELEASED, "status": TaskStatus.PENDING, "error": None, "attempts": 0, "losses": 0, "not_before": None, "note": event.reason}


def _paused(_state: TaskState, event: ev.Paused, _at: float, _seq: int) -> dict[str, Any]:
    return {**_RELEASED, "status": TaskStatus.PAUSED, "note": event.reason}


def _resumed(state: TaskState, _event: ev.Resumed, _at: float, _seq: int) -> dict[str, Any]:
    return {"status": TaskStatus.AWAITING_APPROVAL if state.pending_approvals else TaskStatus.PENDING, "not_before": None}


def _dropped(_state: TaskState, _event: ev.TaskDropped, _at: float, _seq: int) -> dict[str, Any]:
    return {"dropped": True}


def _priority(_state: TaskState, event: ev.PriorityChanged, _at: float, _seq: int) -> dict[str, Any]:
    return {"priority": event.priority}


def _asked(state: TaskState, event: ev.ApprovalRequested, at: float, _seq: int) -> dict[str, Any]:
    asked = ApprovalState(
        id=event.approval, action=event.action, arguments=owned(event.arguments), arguments_digest=event.arguments_digest, context=owned(event.context),
        requested_by=event.requested_by, requested_at=at, expires_at=event.expires_at, default_action=event.default_action,
        suggestion=event.suggestion,
    )  # fmt: skip
    return {"approvals": (*state.approvals, asked), "status": TaskStatus.AWAITING_APPROVAL}


def _decided(state: TaskState, event: ev.ApprovalDecided, at: float, _seq: int) -> dict[str, Any]:
    approvals = _with(
        state, event.approval, status=event.status, decided_by=event.by, decided_at=at, reason=event.reason,
        modified_arguments=event.modified_arguments, grant=event.grant,
    )  # fmt: skip
    waits = any(approval.status is ApprovalStatus.PENDING for approval in approvals)
    changes: dict[str, Any] = {"approvals": approvals}
    if state.status is TaskStatus.AWAITING_APPROVAL and not waits:
        changes["status"] = TaskStatus.EXECUTING if state.executor is not None else TaskStatus.PENDING
    return changes


def _effect_begun(state: TaskState, event: ev.EffectBegun, _at: float, _seq: int) -> dict[str, Any]:
    return {"approvals": _with(state, event.approval, effect="begun")}


def _effect_finished(state: TaskState, event: ev.EffectFinished, _at: float, _seq: int) -> dict[str, Any]:
    return {"approvals": _with(state, event.approval, effect="finished", outcome=owned(event.outcome))}


def _with(state: TaskState, approval_id: str, **changes: Any) -> tuple[ApprovalState, ...]:
    return tuple(msgspec.structs.replace(one, **changes) if one.id == approval_id else one for one in state.approvals)


def _withdrawn(state: TaskState) -> tuple[ApprovalState, ...]:
    if not state.approvals:
        return state.approvals
    return tuple(
        msgspec.structs.replace(one, status=ApprovalStatus.WITHDRAWN) if one.status is ApprovalStatus.PENDING else one for one in state.approvals
    )


_STATE: Final = msgspec.json.Decoder(TaskState)
_CHANGES: Final[dict[type, Callable[[TaskState, Any, float, int], dict[str, Any]]]] = {
    ev.Assigned: _assigned,
    ev.ProgressReported: _progress,
    ev.StepFinished: _step,
    ev.CheckpointSaved: _checkpoint,
    ev.LeaseExpired: _expired,
    ev.AttemptFailed: _attempt_failed,
    ev.ContinuationRequired: _continuation,
    ev.TaskCompleted: _completed,
    ev.TaskFailed: _failed,
    ev.Reopened: _reopened,
    ev.Paused: _paused,
    ev.Resumed: _resumed,
    ev.PriorityChanged: _priority,
    ev.TaskDropped: _dropped,
    ev.ApprovalRequested: _asked,
    ev.ApprovalDecided: _decided,
    ev.EffectBegun: _effect_begun,
    ev.EffectFinished: _effect_finished,
}
