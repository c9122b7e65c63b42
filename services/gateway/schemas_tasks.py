"""Bodies of the routes of tasks, executors, approvals, schedules and knowledge as msgspec structs: names on the wire are camelCase, as in the contract.

What a value may be in detail (schemas, cycles, rights) is the orchestrator's to say; here are the bounds that keep a request from growing without end.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from appliance.contracts.orchestrator.v1.values import (
    EMPTY,
    NULL,
    ApprovalRequest,
    Checkpoint,
    Executor,
    ExecutorCapabilities,
    ExecutorStatus,
    ExecutorType,
    KnowledgeEntry,
    KnowledgeType,
    OptionalRaw,
    PerformanceProfile,
    StepRecord,
    Task,
    TaskEvent,
    TaskSpec,
    Wire,
    null_is_none,
)

Identifier = Annotated[str, Meta(min_length=1, max_length=200)]
SpaceName = Annotated[str, Meta(min_length=1, max_length=63)]
Reason = Annotated[str, Meta(max_length=4000)]
Token = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(gt=0, le=31_622_400)]
Action = Annotated[str, Meta(min_length=1, max_length=200)]

MOST_TASKS_AT_ONCE: Final = 10_000
MOST_WAIT_SECONDS: Final = 300.0
MOST_CLAIM_SECONDS: Final = 60.0


class NewTasks(Wire, frozen=True):
    """Tasks to make, all or none; a task may depend on another of the same submission by its ``key``."""

    tasks: Annotated[tuple[TaskSpec, ...], Meta(min_length=1, max_length=MOST_TASKS_AT_ONCE)]


class TaskList(Wire, frozen=True):
    """Tasks; ``next`` is the ``before`` of the following page, null at the end."""

    data: tuple[Task, ...]
    next: str | None = None


class HistoryList(Wire, frozen=True):
    """Events, oldest first."""

    data: tuple[TaskEvent, ...]


class Why(Wire, frozen=True):
    """A reason, for the history."""

    reason: Reason = ""


class Fork(Wire, frozen=True):
    """Where the new task begins (a checkpoint, or the input) and what its input is (that of the old one when absent)."""

    checkpoint_id: Identifier | None = None
    input_data: OptionalRaw = None

    def __post_init__(self) -> None:
        null_is_none(self, "input_data")


class NewPriority(Wire, frozen=True):
    """0–100, higher goes first."""

    priority: Annotated[int, Meta(ge=0, le=100)]


class Registration(Wire, frozen=True):
    """An executor offers its work."""

    id: Identifier
    type: ExecutorType
    capabilities: ExecutorCapabilities
    name: Annotated[str, Meta(max_length=200)] = ""
    version: Annotated[str, Meta(max_length=200)] = ""
    endpoint: Annotated[str, Meta(max_length=1000)] = ""
    max_load: Annotated[int, Meta(ge=1, le=10_000)] = 1


class ExecutorList(Wire, frozen=True):
    """All executors."""

    data: tuple[Executor, ...]


class NewStatus(Wire, frozen=True):
    """``online``, ``draining`` or ``disabled``."""

    status: ExecutorStatus


class Claim(Wire, frozen=True):
    """Ask for work; the answer comes at the latest after ``waitSeconds``."""

    wait_seconds: Annotated[float, Meta(ge=0, le=MOST_CLAIM_SECONDS)] = 0.0
    capabilities: ExecutorCapabilities | None = None


class Claimed(Wire, frozen=True):
    """The task, with its fencing token; null when there is none."""

    task: Task | None


class Report(Wire, frozen=True):
    """The work goes on."""

    token: Token
    progress: Annotated[float, Meta(ge=0, le=1)]
    note: Annotated[str, Meta(max_length=4000)] = ""
    steps: Annotated[tuple[StepRecord, ...], Meta(max_length=1000)] = ()


class StepList(Wire, frozen=True):
    """Finished steps."""

    data: tuple[StepRecord, ...]


class NewCheckpoint(Wire, frozen=True):
    """The executor's own state."""

    token: Token
    state_snapshot: msgspec.Raw
    executed_actions: msgspec.Raw = msgspec.Raw(b"[]")
    remaining_plan: msgspec.Raw = msgspec.Raw(b"[]")


class Completion(Wire, frozen=True):
    """The result."""

    token: Token
    result: msgspec.Raw = NULL
    metrics: OptionalRaw = None

    def __post_init__(self) -> None:
        null_is_none(self, "metrics")


class FailureReport(Wire, frozen=True):
    """It did not work."""

    token: Token
    error: Annotated[str, Meta(min_length=1, max_length=20_000)]
    diagnostics: OptionalRaw = None
    retryable: bool = True

    def __post_init__(self) -> None:
        null_is_none(self, "diagnostics")


class Delegation(Wire, frozen=True):
    """A child task."""

    token: Token
    task: TaskSpec


class Continuation(Wire, frozen=True):
    """Given back unfinished."""

    token: Token
    reason: Reason
    checkpoint_id: Identifier | None = None


class Question(Wire, frozen=True):
    """An action that a person shall allow."""

    token: Token
    action: Action
    arguments: msgspec.Raw = EMPTY
    context: OptionalRaw = None
    expires_in_seconds: Seconds | None = None
    default_action: Literal["approve", "reject"] = "reject"

    def __post_init__(self) -> None:
        null_is_none(self, "context")


class EffectBegins(Wire, frozen=True):
    """An approved action is about to be carried out."""

    token: Token


class EffectStanding(Wire, frozen=True):
    """``mayRun``: now, once; otherwise it is done, with ``outcome``."""

    may_run: bool
    outcome: msgspec.Raw = NULL


class EffectOutcome(Wire, frozen=True):
    """An approved action was carried out."""

    token: Token
    outcome: msgspec.Raw = NULL


class ApprovalList(Wire, frozen=True):
    """Approval requests, oldest first."""

    data: tuple[ApprovalRequest, ...]


class Decision(Wire, frozen=True):
    """The answer; with ``modifiedArguments`` the action is approved with those instead."""

    decision: Literal["approve", "reject"]
    reason: Reason = ""
    modified_arguments: OptionalRaw = None
    grant: Literal["once", "session", "always"] = "once"

    def __post_init__(self) -> None:
        null_is_none(self, "modified_arguments")


class Rules(Wire, frozen=True):
    """Rules of a space, and suggestions from the history of decisions."""

    data: tuple[dict[str, Any], ...]


class Rule(Wire, frozen=True):
    """What holds for an action; it may end in ``*``."""

    action: Action
    mode: Literal["ALWAYS", "ASK", "DENY"]


class NewSchedule(Wire, frozen=True):
    """A task that is made by the clock or by an event."""

    trigger: dict[str, Any]
    spec: TaskSpec


class Rows(Wire, frozen=True):
    """Rows of JSON."""

    data: tuple[dict[str, Any], ...]


class NewKnowledge(Wire, frozen=True):
    """An entry to keep; the same ``key`` replaces."""

    type: KnowledgeType
    content: Annotated[str, Meta(min_length=1, max_length=1_000_000)]
    space: SpaceName = "default"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    related_entries: Annotated[tuple[Identifier, ...], Meta(max_length=1000)] = ()
    key: Identifier | None = None


class KnowledgeSearch(Wire, frozen=True):
    """What is looked for, in which spaces (null = all that the caller may read)."""

    query: Annotated[str, Meta(min_length=1, max_length=10_000)]
    type: KnowledgeType | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    spaces: Annotated[tuple[SpaceName, ...], Meta(max_length=1000)] | None = None


class KnowledgeList(Wire, frozen=True):
    """Entries, best first."""

    data: tuple[KnowledgeEntry, ...]


class CypherQuery(Wire, frozen=True):
    """Read-only Cypher over the graph of one space."""

    cypher: Annotated[str, Meta(min_length=1, max_length=20_000)]
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    space: Annotated[str, Meta(min_length=1, max_length=63)] = "default"


TASKS_EXAMPLE: Final = {
    "tasks": [
        {"type": "text.word_count", "key": "count", "inputData": {"text": "ten boxes of apples"}},
        {"type": "workflow.steps", "key": "report", "dependencies": ["count"], "inputData": {"steps": 3}, "priority": 80},
    ]
}
CAPABILITIES_EXAMPLE: Final = msgspec.to_builtins(
    ExecutorCapabilities(
        supported_task_types=("code_generation",), performance_profile=PerformanceProfile(average_latency=2.5), context_window_size=200_000
    )
)
REGISTRATION_EXAMPLE: Final = {"id": "agent-7", "type": "claude_sonnet", "name": "Agent 7", "capabilities": CAPABILITIES_EXAMPLE, "maxLoad": 2}
QUESTION_EXAMPLE: Final = {"token": 4711, "action": "file.delete", "arguments": {"path": "/data/old.csv"}, "expiresInSeconds": 3600}
DECISION_EXAMPLE: Final = {"decision": "approve", "grant": "once", "reason": "agreed with legal"}
SCHEDULE_EXAMPLE: Final = {
    "trigger": {"cron": "0 7 * * 1-5", "timezone": "Europe/Moscow"},
    "spec": {"type": "text.word_count", "inputData": {"text": "every working day"}},
}
KNOWLEDGE_EXAMPLE: Final = {
    "type": "domain_knowledge",
    "content": "Invoices of North Ltd. are in roubles.",
    "space": "legal",
    "key": "north-currency",
}
SEARCH_EXAMPLE: Final = {"query": "which currency has North", "limit": 5}
CYPHER_EXAMPLE: Final = {"cypher": "MATCH (e:Entry) RETURN e.id, e.type LIMIT 10", "parameters": {}}

SHOWN: Final[tuple[type[msgspec.Struct], ...]] = (
    Task,
    Checkpoint,
    Executor,
    ApprovalRequest,
    KnowledgeEntry,
    NewTasks,
    TaskList,
    HistoryList,
    Why,
    Fork,
    NewPriority,
    Registration,
    ExecutorList,
    NewStatus,
    Claim,
    Claimed,
    Report,
    StepList,
    NewCheckpoint,
    Completion,
    FailureReport,
    Delegation,
    Continuation,
    Question,
    EffectBegins,
    EffectStanding,
    EffectOutcome,
    ApprovalList,
    Decision,
    Rules,
    Rule,
    NewSchedule,
    Rows,
    NewKnowledge,
    KnowledgeSearch,
    KnowledgeList,
    CypherQuery,
)
