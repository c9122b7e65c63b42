"""What can happen. One decision is one :class:`Envelope` in the log; its events take effect together.

Owns: the shapes in the log and their version. Shapes are append-only: a field that is added has a default, a field never changes its meaning; what cannot
be said that way is a new version and an upcaster (``upcasting``). Names on the wire are the class names.
"""

from __future__ import annotations

from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import (
    EMPTY,
    NULL,
    ApprovalStatus,
    ExecutorCapabilities,
    ExecutorStatus,
    ExecutorType,
    OptionalRaw,
    RetryPolicy,
    TaskError,
)

SCHEMA_VERSION: Final = 1


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="name", omit_defaults=True, gc=False):
    """Base of all events."""


class CheckpointSaved(Event, frozen=True):
    """A checkpoint is in the object store (stored before this was written)."""

    checkpoint: str
    number: int
    base: str | None = None
    size_bytes: int = 0
    digest: str = ""


class TaskCreated(Event, frozen=True):
    """A task is there. ``steps`` and ``checkpoint`` (a full copy, its own) are set when it was forked from another."""

    type: str
    space: str
    owner: str
    description: str = ""
    input_data: msgspec.Raw = EMPTY
    priority: int = 50
    deadline: float | None = None
    dependencies: tuple[str, ...] = ()
    key: str | None = None
    executor_type: ExecutorType | None = None
    output_schema: OptionalRaw = None
    retry: RetryPolicy = RetryPolicy()
    timeout_seconds: float | None = None
    metadata: msgspec.Raw = EMPTY
    parent: str | None = None
    forked_from: str | None = None
    steps: dict[str, msgspec.Raw] = {}
    checkpoint: CheckpointSaved | None = None


class Assigned(Event, frozen=True):
    """An executor's claim won. The sequence of its envelope is the fencing token. ``incarnation`` tells the runs of one executor apart."""

    executor: str
    incarnation: int
    lease_until: float
    started: bool = False
    models: tuple[str, ...] = ()


class ProgressReported(Event, frozen=True):
    """The work goes on; the lease is renewed."""

    lease_until: float
    progress: float | None = None
    note: str | None = None


class StepFinished(Event, frozen=True):
    """A step of the attempt has a result that later attempts reuse."""

    step: str
    result: msgspec.Raw = NULL


class LeaseExpired(Event, frozen=True):
    """The claim ended without a report: the executor is gone, silent, or has registered anew."""

    executor: str
    reason: str
    not_before: float | None = None


class AttemptFailed(Event, frozen=True):
    """It did not work; it is tried again from ``not_before`` on."""

    error: TaskError
    not_before: float


class ContinuationRequired(Event, frozen=True):
    """Given back unfinished; whoever goes on begins at the checkpoint."""

    reason: str
    checkpoint: str | None = None


class TaskCompleted(Event, frozen=True):
    """The result: the only event after which nothing can follow."""

    result: msgspec.Raw = NULL
    metrics: msgspec.Raw = EMPTY


class TaskFailed(Event, frozen=True):
    """It ends without a result: cancelled, out of attempts, past its deadline, or because of a dependency."""

    error: TaskError


class Reopened(Event, frozen=True):
    """An operator lets a failed task try again."""

    reason: str = ""


class Paused(Event, frozen=True):
    """Held back; a claim ends."""

    reason: str = ""


class Resumed(Event, frozen=True):
    """Goes on after a pause."""


class PriorityChanged(Event, frozen=True):
    """0–100."""

    priority: int


class ApprovalRequested(Event, frozen=True):
    """A person is asked. ``arguments_digest`` binds the answer to the arguments."""

    approval: str
    action: str
    arguments: msgspec.Raw
    arguments_digest: str
    context: msgspec.Raw = EMPTY
    requested_by: str = ""
    expires_at: float | None = None
    default_action: str = "reject"
    suggestion: str = ""


class ApprovalDecided(Event, frozen=True):
    """The answer, by a person, a policy, or the clock. ``grant`` = ``once``, ``session``, ``always``."""

    approval: str
    status: ApprovalStatus
    by: str
    reason: str = ""
    modified_arguments: OptionalRaw = None
    grant: str = "once"


class EffectBegun(Event, frozen=True):
    """The approved action is about to be carried out; from here on it may have happened."""

    approval: str


class EffectFinished(Event, frozen=True):
    """The approved action has been carried out."""

    approval: str
    outcome: msgspec.Raw = NULL


class Compacted(Event, frozen=True):
    """The whole state up to here; entries before it may be dropped from the log. ``state`` is a ``TaskState`` as JSON."""

    state: msgspec.Raw


class TaskDropped(Event, frozen=True):
    """Retention: nothing can follow, the task's entries and objects go. Replicas forget it."""


TaskHappening = (
    TaskCreated
    | Compacted
    | TaskDropped
    | Assigned
    | ProgressReported
    | StepFinished
    | CheckpointSaved
    | LeaseExpired
    | AttemptFailed
    | ContinuationRequired
    | TaskCompleted
    | TaskFailed
    | Reopened
    | Paused
    | Resumed
    | PriorityChanged
    | ApprovalRequested
    | ApprovalDecided
    | EffectBegun
    | EffectFinished
)


class ExecutorRegistered(Event, frozen=True):
    """An executor offers its work; a higher incarnation ends the claims of the one before.

    ``owned_since``: the first incarnation of this owner without another in between; what earlier ones worked on is not the owner's.
    ``spaces``: where it was offered work when it registered; None = everywhere.
    """

    type: ExecutorType
    capabilities: ExecutorCapabilities
    executor_name: str = ""
    version: str = ""
    endpoint: str = ""
    max_load: int = 1
    owner: str = ""
    incarnation: int = 1
    replica: str = ""
    owned_since: int = 0
    spaces: tuple[str, ...] | None = None


class ExecutorStatusChanged(Event, frozen=True):
    """By an operator, or ``lost`` by whoever missed its heartbeat."""

    status: ExecutorStatus
    by: str = ""


class ExecutorUnregistered(Event, frozen=True):
    """It left."""


ExecutorHappening = ExecutorRegistered | ExecutorStatusChanged | ExecutorUnregistered


class PolicyChanged(Event, frozen=True):
    """A rule of a space for an action (``mode`` ALWAYS, ASK, DENY; None removes it)."""

    action: str
    mode: str | None
    source: str = "operator"


class ScheduleChanged(Event, frozen=True):
    """A schedule of a space; ``spec`` None removes it."""

    schedule: str
    trigger: msgspec.Raw = EMPTY
    spec: OptionalRaw = None
    owner: str = ""


class ScheduleFired(Event, frozen=True):
    """A schedule made a task for ``due``; ``missed`` due times before it were caught up by this one."""

    schedule: str
    due: float
    task: str
    missed: int = 0


class SpaceCompacted(Event, frozen=True):
    """All rules and schedules up to here; entries before it may be dropped. ``state`` is a ``SpaceState`` as JSON."""

    state: msgspec.Raw


SpaceHappening = PolicyChanged | ScheduleChanged | ScheduleFired | SpaceCompacted
Happening = TaskHappening | ExecutorHappening | SpaceHappening


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One decision: what happened, when (Unix seconds, the clock of whoever decided), by whom, and for which command. ``v`` is always written."""

    v: int
    at: float
    by: str
    cmd: str = ""
    trace: str = ""
    events: tuple[Happening, ...]
