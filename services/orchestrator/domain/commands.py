"""What can be asked of a task. Pure values; rights are checked before (``appliance.identity.permissions``), the rules of the domain in ``decide``.

``at`` is not here: the clock is an argument of ``decide``. ``token`` is the fencing token of the claim that the caller works under.
"""

from __future__ import annotations

import msgspec

from appliance.contracts.orchestrator.v1.values import EMPTY, NULL, ApprovalStatus, StepRecord, TaskError
from services.orchestrator.domain.events import TaskCreated


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all commands."""


class Create(Command, frozen=True):
    """Make the task; again with the same content: nothing happens."""

    created: TaskCreated


class Assign(Command, frozen=True):
    """A claim for ``executor``. ``dependencies_met`` was looked up by the caller: completed tasks stay completed, so it cannot become false."""

    executor: str
    incarnation: int
    lease_until: float
    dependencies_met: bool
    started: bool = False
    models: tuple[str, ...] = ()


class Report(Command, frozen=True):
    """Progress, steps, or only a sign of life."""

    token: int
    lease_until: float
    progress: float | None = None
    note: str | None = None
    steps: tuple[StepRecord, ...] = ()


class SaveCheckpoint(Command, frozen=True):
    """The checkpoint is stored; now it counts."""

    token: int
    checkpoint: str
    base: str | None
    size_bytes: int
    digest: str
    number: int


class Complete(Command, frozen=True):
    """``result`` has been verified. ``steps`` are those not yet reported."""

    token: int
    result: msgspec.Raw = NULL
    metrics: msgspec.Raw = EMPTY
    steps: tuple[StepRecord, ...] = ()


class Fail(Command, frozen=True):
    """The attempt failed. ``jitter`` in [-1, 1] spreads the retries."""

    token: int
    error: TaskError
    retryable: bool = True
    jitter: float = 0.0


class ContinueLater(Command, frozen=True):
    """Give it back unfinished."""

    token: int
    reason: str
    checkpoint: str | None = None


class ExpireLease(Command, frozen=True):
    """The claim with ``token`` is over: ``reason`` ``silent``, ``incarnation``, ``unregistered``, ``timeout``."""

    token: int
    reason: str
    most_losses: int
    jitter: float = 0.0


class FailDependent(Command, frozen=True):
    """A dependency failed: this task can never run."""

    dependency: str


class PassDeadline(Command, frozen=True):
    """The deadline is over and the task is not done."""


class Cancel(Command, frozen=True):
    """End it."""

    reason: str = ""


class Pause(Command, frozen=True):
    """Hold it."""

    reason: str = ""


class Resume(Command, frozen=True):
    """Go on."""


class Reopen(Command, frozen=True):
    """Try a failed task again."""

    reason: str = ""


class SetPriority(Command, frozen=True):
    """0–100."""

    priority: int


class RequestApproval(Command, frozen=True):
    """Ask a person, unless ``verdict`` (what policies say: None = ask) answers at once."""

    token: int
    approval: str
    action: str
    arguments: msgspec.Raw
    arguments_digest: str
    context: msgspec.Raw
    requested_by: str
    expires_at: float | None
    default_action: str
    suggestion: str = ""
    verdict: ApprovalStatus | None = None
    verdict_by: str = ""


class DecideApproval(Command, frozen=True):
    """The answer of a person. ``status`` is APPROVED, MODIFIED or REJECTED."""

    approval: str
    status: ApprovalStatus
    by: str
    reason: str = ""
    modified_arguments: msgspec.Raw | None = None
    grant: str = "once"


class ExpireApproval(Command, frozen=True):
    """Nobody answered in time: the default action is taken."""

    approval: str


class BeginEffect(Command, frozen=True):
    """About to carry out what was approved."""

    token: int
    approval: str


class FinishEffect(Command, frozen=True):
    """Carried out."""

    token: int
    approval: str
    outcome: msgspec.Raw = NULL


class Drop(Command, frozen=True):
    """Retention has come to it: the log forgets it, once this is written. Only ended tasks."""


class Compact(Command, frozen=True):
    """Write the state down whole, so that the entries before can go."""
