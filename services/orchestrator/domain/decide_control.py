"""Rules of what owners, operators, dependencies and the clock do to a task. Part of ``decide``."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.contracts.orchestrator.v1.values import TaskError, TaskStatus
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.domain.task_state import TaskState

Events = Sequence[ev.TaskHappening]


def cancel(state: TaskState, command: cm.Cancel, _now: float) -> Events:
    """From every status but the terminal ones."""
    if state.status is TaskStatus.FAILED and state.error is not None and state.error.code == "cancelled":
        return ()
    _not_terminal(state)
    return (ev.TaskFailed(error=TaskError(code="cancelled", message=command.reason or "cancelled")),)


def pause(state: TaskState, command: cm.Pause, _now: float) -> Events:
    """From every status but the terminal ones; a claim ends, and its executor is told by its next report."""
    if state.status is TaskStatus.PAUSED:
        return ()
    _not_terminal(state)
    return (ev.Paused(reason=command.reason),)


def resume(state: TaskState, _command: cm.Resume, _now: float) -> Events:
    """Only from paused."""
    if state.status is TaskStatus.PAUSED:
        return (ev.Resumed(),)
    _not_terminal(state)
    if state.status in {TaskStatus.PENDING, TaskStatus.AWAITING_APPROVAL}:
        return ()  # where a resumed task is
    raise ApplianceError("task_state", f"the task is {state.status}, not paused", hint="only paused tasks are resumed")


def reopen(state: TaskState, command: cm.Reopen, _now: float) -> Events:
    """Only from failed."""
    if state.status is not TaskStatus.FAILED:
        raise ApplianceError("task_state", f"the task is {state.status}, not failed", hint="only failed tasks are retried")
    return (ev.Reopened(reason=command.reason),)


def set_priority(state: TaskState, command: cm.SetPriority, _now: float) -> Events:
    """While it is not over."""
    if not 0 <= command.priority <= 100:
        raise ApplianceError("invalid_request", "a priority is a number from 0 to 100")
    _not_terminal(state)
    return () if state.priority == command.priority else (ev.PriorityChanged(priority=command.priority),)


def fail_dependent(state: TaskState, command: cm.FailDependent, _now: float) -> Events:
    """A task whose dependency failed never runs."""
    if state.is_terminal:
        return ()
    error = TaskError(code="dependency_failed", message=f"the task it depends on failed: {command.dependency}")
    return (ev.TaskFailed(error=error),)


def pass_deadline(state: TaskState, _command: cm.PassDeadline, now: float) -> Events:
    """Whatever it was doing."""
    if state.is_terminal or state.deadline is None or state.deadline > now:
        return ()
    return (ev.TaskFailed(error=TaskError(code="deadline_exceeded", message="the deadline is over")),)


def _not_terminal(state: TaskState) -> None:
    if state.is_terminal:
        raise ApplianceError("task_state", f"the task is {state.status} already", hint="nothing can be changed any more")
