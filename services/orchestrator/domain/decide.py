"""``decide(state, command, now) -> events``: the rules of a task's life, one function per command. Pure: same input, same output.

An empty result means: nothing to do, what was asked stands already (commands are idempotent). A rule that forbids raises ApplianceError:
``stale_claim`` (another claim, or none), ``task_state`` (the status does not allow it), ``not_found`` (an approval), ``effect_unknown``.
The rules of claims and reports are here, those of approvals in ``decide_approvals``, those of owners and operators in ``decide_control``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import RetryPolicy, StepRecord, TaskError, TaskStatus
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import decide_approvals, decide_control
from services.orchestrator.domain import events as ev
from services.orchestrator.domain.claims import held_by
from services.orchestrator.domain.task_state import TaskState

Events = Sequence[ev.TaskHappening]
MOST_STEPS: Final = 10_000
MOST_CHECKPOINTS: Final = 10_000
_JITTER: Final = 0.2


def decide(state: TaskState | None, command: cm.Command, now: float) -> Events:
    """What happens when ``command`` meets ``state`` at ``now`` (Unix seconds)."""
    if isinstance(command, cm.Create):
        return _create(state, command)
    if state is None or (state.dropped and not isinstance(command, cm.Drop)):
        raise ApplianceError("not_found", "task not found", hint="check the id")
    return _RULES[type(command)](state, command, now)


def _create(state: TaskState | None, command: cm.Create) -> Events:
    if state is None:
        return (command.created,)
    if state.dropped:
        raise ApplianceError("overloaded", "an old task with this key is being removed", hint="try again in a moment", task=state.id)
    same = (state.type, state.space, state.owner, state.input_data, state.dependencies, state.parent) == (
        command.created.type, command.created.space, command.created.owner, command.created.input_data, command.created.dependencies,
        command.created.parent,
    )  # fmt: skip
    if not same:
        raise ApplianceError("conflict", "a task with this key exists and is another one", hint="choose a new key", task=state.id)
    return ()


def _compact(state: TaskState, _command: cm.Compact, _now: float) -> Events:
    return (ev.Compacted(state=msgspec.Raw(msgspec.json.encode(state))),)


def _drop(state: TaskState, _command: cm.Drop, _now: float) -> Events:
    if state.dropped:
        return ()
    if not state.is_terminal:
        raise ApplianceError("task_state", f"the task is {state.status}", hint="only ended tasks are dropped")
    return (ev.TaskDropped(),)


def _assign(state: TaskState, command: cm.Assign, now: float) -> Events:
    if state.is_held and state.executor == command.executor and state.incarnation == command.incarnation:
        return ()
    if not state.is_claimable or not command.dependencies_met:
        raise ApplianceError("task_state", f"the task is {state.status}, not ready", hint="claim another one")
    if state.waits(now):
        raise ApplianceError("task_state", "the task waits before its next attempt", hint="claim another one")
    if state.deadline is not None and state.deadline <= now:
        raise ApplianceError("task_state", "the deadline of the task is over", hint="claim another one")
    return (
        ev.Assigned(
            executor=command.executor, incarnation=command.incarnation, lease_until=command.lease_until, started=command.started,
            models=command.models,
        ),
    )  # fmt: skip


def _report(state: TaskState, command: cm.Report, _now: float) -> Events:
    held_by(state, command.token)
    steps = _new_steps(state, command.steps)
    if command.progress is None and command.note is None and steps:
        return steps
    progress = None if command.progress is None else min(1.0, max(0.0, command.progress))
    return (*steps, ev.ProgressReported(lease_until=command.lease_until, progress=progress, note=command.note))


def _checkpoint(state: TaskState, command: cm.SaveCheckpoint, _now: float) -> Events:
    held_by(state, command.token)
    if any(known.id == command.checkpoint for known in state.checkpoints):
        return ()
    if len(state.checkpoints) >= MOST_CHECKPOINTS:
        raise ApplianceError("task_state", f"a task keeps at most {MOST_CHECKPOINTS} checkpoints", hint="save less often")
    return (
        ev.CheckpointSaved(
            checkpoint=command.checkpoint, number=command.number, base=command.base, size_bytes=command.size_bytes, digest=command.digest
        ),
    )


def _complete(state: TaskState, command: cm.Complete, _now: float) -> Events:
    if state.status is TaskStatus.COMPLETED and state.token == command.token and state.result == command.result:
        return ()  # the reply to the first report was lost
    held_by(state, command.token)
    if state.status is TaskStatus.AWAITING_APPROVAL:
        raise ApplianceError("task_state", "an approval of the task is pending", hint="wait for it, or let an operator decide")
    return (*_new_steps(state, command.steps), ev.TaskCompleted(result=command.result, metrics=command.metrics))


def _fail(state: TaskState, command: cm.Fail, now: float) -> Events:
    if _has_failed_so(state, command):
        return ()  # the reply to the first report was lost
    held_by(state, command.token)
    if not command.retryable:
        return (ev.TaskFailed(error=command.error),)
    if state.attempts + 1 >= state.retry.max_attempts:
        return (ev.TaskFailed(error=_exhausted(state, command.error)),)
    return (ev.AttemptFailed(error=command.error, not_before=now + backoff(state.retry, state.attempts + 1, command.jitter)),)


def _has_failed_so(state: TaskState, command: cm.Fail) -> bool:
    if state.token != command.token or state.is_held:
        return False
    is_dead = state.status is TaskStatus.FAILED and command.retryable and state.error == _exhausted(state, command.error)
    return is_dead or state.error == command.error


def _exhausted(state: TaskState, last: TaskError) -> TaskError:
    message = f"{state.retry.max_attempts} attempts failed; the last: {last.message}"
    return TaskError(code="retries_exhausted", message=message, diagnostics=last.diagnostics)


def _continue(state: TaskState, command: cm.ContinueLater, _now: float) -> Events:
    if state.status is TaskStatus.REQUIRES_CONTINUATION and state.token == command.token:
        return ()
    held_by(state, command.token)
    return (ev.ContinuationRequired(reason=command.reason, checkpoint=command.checkpoint),)


def _expire(state: TaskState, command: cm.ExpireLease, now: float) -> Events:
    if not state.is_held or state.token != command.token or state.executor is None:
        return ()  # somebody else was first, or it reported after all
    if command.reason == "timeout":
        error = TaskError(code="timeout", message="the attempt took too long")
        return _fail(state, cm.Fail(token=command.token, error=error, jitter=command.jitter), now)
    expired = ev.LeaseExpired(executor=state.executor, reason=command.reason, not_before=_after_losses(state, now, command.jitter))
    if state.losses + 1 >= command.most_losses:
        message = f"{state.losses + 1} claims ended without a report"
        return (expired, ev.TaskFailed(error=TaskError(code="retries_exhausted", message=message)))
    return (expired,)


def _after_losses(state: TaskState, now: float, jitter: float) -> float | None:
    """The first loss is taken up at once: most are restarts. Later ones wait, lest a task that kills its executor kills them all."""
    return now + backoff(state.retry, state.losses, jitter) if state.losses else None


def backoff(retry: RetryPolicy, attempt: int, jitter: float) -> float:
    """Seconds before attempt ``attempt + 1``: exponential, capped, ± 20 % (``jitter`` in [-1, 1])."""
    exponent = min(attempt - 1, 64)  # beyond that the cap has long been reached, and floats end somewhere
    return min(retry.first_seconds * retry.factor**exponent, retry.most_seconds) * (1 + _JITTER * jitter)


def _new_steps(state: TaskState, steps: Sequence[StepRecord]) -> tuple[ev.StepFinished, ...]:
    """Steps that are not known yet: a repeated report changes nothing. Of two with one name the first counts."""
    by_name = {step.name: step for step in reversed(steps) if step.name not in state.steps}
    fresh = tuple(ev.StepFinished(step=step.name, result=step.result) for step in reversed(by_name.values()))
    if len(state.steps) + len(fresh) > MOST_STEPS:
        raise ApplianceError("task_state", f"a task has at most {MOST_STEPS} steps", hint="split the task")
    return fresh


_RULES: Final[dict[type, Callable[[TaskState, Any, float], Events]]] = {
    cm.Compact: _compact,
    cm.Drop: _drop,
    cm.Assign: _assign,
    cm.Report: _report,
    cm.SaveCheckpoint: _checkpoint,
    cm.Complete: _complete,
    cm.Fail: _fail,
    cm.ContinueLater: _continue,
    cm.ExpireLease: _expire,
    cm.RequestApproval: decide_approvals.request,
    cm.DecideApproval: decide_approvals.decide,
    cm.ExpireApproval: decide_approvals.expire,
    cm.BeginEffect: decide_approvals.begin_effect,
    cm.FinishEffect: decide_approvals.finish_effect,
    cm.FailDependent: decide_control.fail_dependent,
    cm.PassDeadline: decide_control.pass_deadline,
    cm.Cancel: decide_control.cancel,
    cm.Pause: decide_control.pause,
    cm.Resume: decide_control.resume,
    cm.Reopen: decide_control.reopen,
    cm.SetPriority: decide_control.set_priority,
}
