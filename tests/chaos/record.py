"""What the driver of a chaos run was told: every acknowledgement, kept outside of the system under test, for the checker."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Record:
    """Acknowledged means: the call returned.

    Attributes:
        submitted: key → task id.
        children: task id → its parent's.
        decisions: approval → the status that was answered.
        completed: task → result (JSON) of completions that the driver's agents reported.
        steps: (task, step) that they reported.
        checkpoints: (task, checkpoint) that they saved.
        cancelled, paused, resumed: tasks.
        effects: approvals whose outcome was acknowledged (``finish_effect``).
        wrong: what was answered and must not have been (a stale token that was accepted, another id for the same key).
        sums: task → what its result must contain.
    """

    submitted: dict[str, str] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)
    completed: dict[str, bytes] = field(default_factory=dict)
    steps: list[tuple[str, str]] = field(default_factory=list)
    checkpoints: list[tuple[str, str]] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    resumed: set[str] = field(default_factory=set)
    effects: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    sums: dict[str, int] = field(default_factory=dict)
