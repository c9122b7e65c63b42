"""Whose claim it is: the fencing check that every report of an executor passes."""

from __future__ import annotations

from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.task_state import TaskState


def held_by(state: TaskState, token: int) -> None:
    """Raise ``stale_claim`` unless ``token`` is that of the claim that holds now, ``task_state`` when the task is over."""
    if state.is_terminal:
        raise ApplianceError("task_state", f"the task is {state.status} already", hint="drop it and claim another one", task=state.id)
    if not state.is_held or state.token != token:
        raise stale(state)


def stale(state: TaskState) -> ApplianceError:
    """The refusal of an executor that has lost its claim."""
    hint = "stop working on it: another executor may have it; claim again"
    return ApplianceError("stale_claim", "this claim of the task has ended", hint=hint, task=state.id)
