"""What a task made by a schedule carries in its metadata, under ``schedule``: why it is there. Pure.

A clock's task names the due time it stands for and how many were missed before it; an event's task names the task that caused it and the ``chain`` of
schedules behind it. The chain is what ends loops: a schedule never fires for a task that it stands behind.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.orchestrator.domain.task_state import TaskState

FIELD: Final = "schedule"
LONGEST_CHAIN: Final = 5


class Stamp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``due``: Unix seconds. ``cause``, ``event`` and ``sequence`` are those of the event; ``chain`` ends with the schedule itself."""

    name: str
    due: float | None = None
    missed: int = 0
    cause: str | None = None
    event: str | None = None
    sequence: int | None = None
    chain: tuple[str, ...] = ()


class _Stamped(msgspec.Struct):
    schedule: Stamp | None = None


_READ: Final = msgspec.json.Decoder(_Stamped)


def stamped(metadata: msgspec.Raw, stamp: Stamp) -> msgspec.Raw:
    """``metadata`` (an object) with the stamp in it."""
    value: dict[str, Any] = msgspec.json.decode(metadata)
    value[FIELD] = stamp
    return msgspec.Raw(msgspec.json.encode(value))


def stamp_of(state: TaskState) -> Stamp | None:
    """The stamp of a task; None when it has none, or what stands there is a caller's own."""
    if b'"schedule"' not in bytes(state.metadata):
        return None
    try:
        return _READ.decode(state.metadata).schedule
    except msgspec.MsgspecError:
        return None
