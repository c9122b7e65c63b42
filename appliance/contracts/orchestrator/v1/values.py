"""Durable tasks, version 1: the values of document 000 §4.1 with its exact names on the wire (camelCase), Python names here.

Times are Unix seconds. Ids: ``t_…`` tasks, ``a_…`` approvals, ``c_…`` checkpoints; executors name themselves. JSON payloads are ``msgspec.Raw`` where they
are only carried (they stay encoded), plain values where they are looked into.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

EMPTY: Final = msgspec.Raw(b"{}")
NULL: Final = msgspec.Raw(b"null")
if TYPE_CHECKING:
    OptionalRaw: TypeAlias = msgspec.Raw | None
else:
    OptionalRaw = msgspec.Raw | msgspec.UnsetType  # as ``Raw | None`` msgspec decodes null only; this one decodes anything, absent is None


class TaskStatus(StrEnum):
    """Where a task stands. ``completed`` and ``failed`` are terminal; a cancelled task is ``failed`` with error code ``cancelled``."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    EXECUTING = "executing"
    AWAITING_APPROVAL = "awaiting_approval"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    REQUIRES_CONTINUATION = "requires_continuation"

    @property
    def is_terminal(self) -> bool:
        """Nothing follows, except that an operator reopens a failed task."""
        return self in {TaskStatus.COMPLETED, TaskStatus.FAILED}


class ExecutorType(StrEnum):
    """Kinds of executors."""

    CLAUDE_OPUS = "claude_opus"
    CLAUDE_SONNET = "claude_sonnet"
    LOCAL_LLM = "local_llm"
    SPECIALIZED_ML = "specialized_ml"
    ALGORITHMIC = "algorithmic"


class ExecutorStatus(StrEnum):
    """``draining`` finishes what it has; ``disabled`` was stopped by an operator; ``lost`` stopped renewing its leases."""

    ONLINE = "online"
    DRAINING = "draining"
    DISABLED = "disabled"
    LOST = "lost"


class KnowledgeType(StrEnum):
    """Kinds of knowledge entries."""

    EXECUTION_HISTORY = "execution_history"
    LEARNED_PATTERN = "learned_pattern"
    FAILURE_ANALYSIS = "failure_analysis"
    DOMAIN_KNOWLEDGE = "domain_knowledge"
    MODEL_PERFORMANCE = "model_performance"


class ApprovalStatus(StrEnum):
    """``modified`` = approved with other arguments; ``expired`` = the default action was taken; ``withdrawn`` = the task ended first."""

    PENDING = "pending"
    APPROVED = "approved"
    MODIFIED = "modified"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=False):
    """Base of everything that crosses an edge."""


def null_is_none(struct: msgspec.Struct, name: str) -> None:
    """``null`` on the wire is None here; for ``__post_init__`` of structs with an ``OptionalRaw``."""
    if getattr(struct, name) == NULL:
        msgspec.structs.force_setattr(struct, name, None)


class TaskError(Wire, frozen=True):
    """Why a task failed: a stable ``code`` (``cancelled``, ``dependency_failed``, ``deadline_exceeded``, ``retries_exhausted``, ``rejected``, ``executor_failed`` …)."""

    code: str
    message: str
    diagnostics: msgspec.Raw = NULL


class RetryPolicy(Wire, frozen=True):
    """Attempt ``n`` waits ``min(first_seconds · factor^(n-1), most_seconds)`` with ± 20 % jitter. After ``max_attempts`` the task is dead-lettered."""

    max_attempts: int = 3
    first_seconds: float = 1.0
    factor: float = 2.0
    most_seconds: float = 300.0


class TaskSpec(Wire, frozen=True):
    """A task to be made.

    Attributes:
        type: category (``code_generation``, ``data_analysis``); executors say which they take.
        space: where it lives; readers of the space see it.
        key: the caller's name for it, unique in its space and owner: submitting the same key again returns the task that is there. Other specs of
            the same submission may depend on it by this name.
        dependencies: ids of tasks, or keys within the submission.
        executor_type: the kind that shall do it; None lets the classifier decide.
        output_schema: JSON Schema that the result must satisfy (``verify``).
        timeout_seconds: longest time of one attempt; None = the box's default.
    """

    type: str
    description: str = ""
    space: str = "default"
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

    def __post_init__(self) -> None:
        null_is_none(self, "output_schema")


class Task(Wire, frozen=True):
    """A task as its readers see it. ``fencing_token`` is shown to its executor only (0 otherwise)."""

    id: str
    type: str
    description: str
    input_data: msgspec.Raw
    priority: int
    deadline: float | None
    dependencies: tuple[str, ...]
    assigned_executor: str | None
    status: TaskStatus
    created_at: float
    updated_at: float
    checkpoints: tuple[str, ...]
    metadata: msgspec.Raw
    space: str
    owner: str
    key: str | None = None
    executor_type: ExecutorType | None = None
    attempt: int = 0
    progress: float = 0.0
    note: str = ""
    parent: str | None = None
    result: msgspec.Raw = NULL
    error: TaskError | None = None
    blocked_by: tuple[str, ...] = ()
    not_before: float | None = None
    fencing_token: int = 0
    lease_until: float | None = None
    version: int = 0


class StepRecord(Wire, frozen=True):
    """A finished step of an attempt; it is not run again by later attempts. ``result`` is what it returned."""

    name: str
    result: msgspec.Raw


class PerformanceProfile(Wire, frozen=True):
    """Seconds, tasks per second, money per task; measured by the executor or by the box."""

    average_latency: float = 0.0
    throughput: float = 0.0
    cost_per_task: float = 0.0


class ExecutorCapabilities(Wire, frozen=True):
    """What an executor can do. Empty ``supported_task_types`` = none; ``*`` = every type."""

    supported_task_types: tuple[str, ...] = ()
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}
    performance_profile: PerformanceProfile = PerformanceProfile()
    context_window_size: int = 0


class PerformanceMetrics(Wire, frozen=True):
    """What the box has seen of an executor."""

    completed: int = 0
    failed: int = 0
    average_latency: float = 0.0
    cost: float = 0.0


class Executor(Wire, frozen=True):
    """An executor as the registry knows it."""

    id: str
    type: ExecutorType
    name: str
    capabilities: ExecutorCapabilities
    status: ExecutorStatus
    current_load: int
    performance_metrics: PerformanceMetrics
    version: str = ""
    endpoint: str = ""
    max_load: int = 1
    owner: str = ""
    seen_at: float = 0.0


class Checkpoint(Wire, frozen=True):
    """A snapshot of a task's own state. ``base`` is the checkpoint that an incremental one (JSON patch, RFC 6902) builds on; readers get it resolved."""

    id: str
    task_id: str
    sequence_number: int
    timestamp: float
    state_snapshot: msgspec.Raw
    executed_actions: msgspec.Raw
    remaining_plan: msgspec.Raw
    base: str | None = None


class ApprovalRequest(Wire, frozen=True):
    """A question to a person. ``arguments_digest`` binds the answer to exactly these ``arguments`` (sha256 of their canonical JSON)."""

    id: str
    task_id: str
    space: str
    action: str
    arguments: msgspec.Raw
    arguments_digest: str
    context: msgspec.Raw
    requested_by: str
    requested_at: float
    expires_at: float | None
    default_action: str
    status: ApprovalStatus
    decided_by: str | None = None
    decided_at: float | None = None
    reason: str = ""
    modified_arguments: OptionalRaw = None
    suggestion: str = ""

    def __post_init__(self) -> None:
        null_is_none(self, "modified_arguments")


class KnowledgeEntry(Wire, frozen=True):
    """A piece of knowledge. ``embedding`` is empty unless asked for."""

    id: str
    type: KnowledgeType
    content: str
    embedding: tuple[float, ...] = ()
    metadata: dict[str, Any] = {}
    related_entries: tuple[str, ...] = ()
    space: str = "default"
    created_at: float = 0.0
    score: float = 0.0


class TaskEvent(Wire, frozen=True):
    """One entry of a task's history, or of the live feed. ``name`` is that of the domain (``TaskCreated``, ``Assigned`` …); ``data`` its fields.

    ``sequence`` orders everything in the log and is where a feed is taken up again.
    """

    sequence: int
    at: float
    name: str
    task_id: str
    space: str
    actor: str
    data: msgspec.Raw
