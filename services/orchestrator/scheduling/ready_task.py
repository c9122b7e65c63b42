"""The two sides of an assignment: a task that could start now, and an executor that could take one.

Owns: what the scheduler needs to know of both, and when they fit at all. Does not own: the task itself (``orchestrator.domain``) or the
registry of executors; both are told here in the scheduler's own terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.contracts.orchestrator.v1.values import ExecutorType, PerformanceProfile

ANY_TYPE: Final = "*"
UNMEASURED: Final = PerformanceProfile()
TypeFilter = tuple[frozenset[str], str]  # types, kind of executor; a plain str: enums hash slowly


@dataclass(frozen=True, slots=True)
class ReadyTask:
    """A task all of whose dependencies are completed.

    Attributes:
        id: the task.
        space: whose share it counts against.
        type: category; an executor says which it takes.
        enqueued_at: when it became ready; its age counts from here. A task that comes back (lease lost, retry) keeps the first value.
        created_at: when it was submitted.
        executor_type: the kind the submitter asked for: no other kind may take it. None = any kind.
        preferred_type: the kind the classifier would choose: a wish, it counts in the score only.
        priority: 0–100.
        deadline: when it shall be finished; None = whenever.
        cost: expected money.
        expected_seconds: expected time of one attempt; 0 = unknown.
        critical_path_seconds: the longest way from its start to the end of everything that waits for it; 0 = unknown.
        context_tokens: how much context it needs; 0 = unknown.
        dispatches: how often it was given out before.
    """

    id: str
    space: str
    type: str
    enqueued_at: float
    created_at: float = 0.0
    executor_type: ExecutorType | None = None
    preferred_type: ExecutorType | None = None
    priority: int = 50
    deadline: float | None = None
    cost: float = 0.0
    expected_seconds: float = 0.0
    critical_path_seconds: float = 0.0
    context_tokens: int = 0
    dispatches: int = 0


@dataclass(frozen=True, slots=True)
class ExecutorOffer:
    """An executor that asks for work, or that could be given some.

    Attributes:
        executor_id: who.
        executor_type: its kind.
        types: task types it takes; ``*`` = every type.
        load: tasks it has now.
        max_load: tasks it can have at once.
        context_window: tokens; 0 = it has no such limit.
        profile: what it says, or the box has measured, of its speed and price.
        spaces: spaces whose tasks it may see; None = all.
    """

    executor_id: str
    executor_type: ExecutorType
    types: frozenset[str]
    load: int = 0
    max_load: int = 1
    context_window: int = 0
    profile: PerformanceProfile = UNMEASURED
    spaces: frozenset[str] | None = None

    @property
    def type_filter(self) -> TypeFilter:
        """What decides which tasks it takes, whatever their space. Two offers with equal filters see the same tasks."""
        return self.types, self.executor_type.value

    def fits(self, task: ReadyTask) -> bool:
        """Whether it may have this task at all."""
        return takes(self.type_filter, task.type, task.executor_type) and (self.spaces is None or task.space in self.spaces)


def takes(type_filter: TypeFilter, task_type: str, wanted: str | None) -> bool:
    """Whether executors of this filter take tasks of a type that ask for the kind ``wanted`` (None: for no kind)."""
    types, kind = type_filter
    return (wanted is None or wanted == kind) and (task_type in types or ANY_TYPE in types)
