"""The parameters of the nine tools, exactly as document 000 §4.3 names them, and how they are read.

What the table names without saying more is required where no sensible default exists; everything else here is optional.
Unknown parameters are refused: a misspelt ``fencingToken`` must not pass for an absent one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
from msgspec import Meta

from appliance.contracts.orchestrator.v1.values import ExecutorType, KnowledgeType
from appliance.kit.errors import ApplianceError

Json = dict[str, Any]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
TaskId = Annotated[str, Meta(min_length=1, max_length=200, description="Id of the task, t_…")]
Token = Annotated[int, Meta(ge=0, description="Fencing token that claim_task returned; absent: that of your claim, as far as the server knows it")]
ClaimedBy = Annotated[Name, Meta(description="Executor that claimed the task; helps when no fencingToken is given")]
Text = Annotated[str, Meta(max_length=1_000_000)]
Space = Annotated[str, Meta(min_length=1, max_length=64, description="Space of the box")]
Wait = Annotated[float, Meta(ge=0, le=3600, description="Seconds to wait")]


class Arguments(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Of one tool."""


class ClaimTask(Arguments, frozen=True):
    """``claim_task``."""

    executor_id: Annotated[Name, Meta(description="Your name as an executor; keep it over restarts")]
    capabilities: Annotated[
        Json,
        Meta(description="supportedTaskTypes (['*'] = any), inputSchema, outputSchema, performanceProfile, contextWindowSize; {} = those registered"),
    ] = {}
    executor_type: ExecutorType | None = None
    max_load: Annotated[int, Meta(ge=1, le=1000, description="Tasks at once, when the executor is new")] = 1
    wait_seconds: Wait = 0.0


class ReportProgress(Arguments, frozen=True):
    """``report_progress``."""

    task_id: TaskId
    progress: Annotated[float, Meta(ge=0, le=1, description="Fraction done, 0–1: 45 % is 0.45; never falls within a claim")]
    status: Annotated[
        str, Meta(max_length=500, description="Short text for people; 'requires_continuation' gives the task back unfinished, any executor may go on")
    ] = ""
    note: Annotated[str, Meta(max_length=500, description="More text for people, or the reason for requires_continuation")] = ""
    steps: Annotated[
        list[Step], Meta(max_length=100, description="Finished steps; they are durable when the call returns and are handed to whoever goes on")
    ] = []
    checkpoint_id: Annotated[Name | None, Meta(description="With requires_continuation: where to go on")] = None
    fencing_token: Token | None = None
    executor_id: ClaimedBy | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished step."""

    name: Name
    result: Any = None


class SaveCheckpoint(Arguments, frozen=True):
    """``save_checkpoint``."""

    task_id: TaskId
    state_snapshot: Annotated[Json, Meta(description="Whatever you need to go on; it is handed to the next claim")]
    executed_actions: Annotated[list[Any], Meta(description="What has been done")] = []
    remaining_plan: Annotated[Any, Meta(description="What is left")] = None
    fencing_token: Token | None = None
    executor_id: ClaimedBy | None = None


class RequestApproval(Arguments, frozen=True):
    """``request_approval``."""

    task_id: TaskId
    decision: Annotated[str, Meta(min_length=1, max_length=1000, description="The action that needs a decision, best as a stable name: 'mail.send'")]
    context: Annotated[Json, Meta(description="What the person needs to decide")] = {}
    arguments: Annotated[
        Json | None, Meta(description="The exact arguments of the action: the answer holds for these only. Absent: the context takes their place")
    ] = None
    expires_in_seconds: Annotated[float, Meta(gt=0, description="After that the default action is taken")] | None = None
    default_action: Annotated[str, Meta(pattern="^(approve|reject)$", description="approve or reject, when it expires")] = "reject"
    wait_seconds: Annotated[Wait | None, Meta(description="How long this call waits; call again to go on waiting")] = None
    effect: (
        Annotated[
            str,
            Meta(
                pattern="^(begin|finish)$",
                description="begin: say so right before the approved action is carried out, it is then done once, also across a crash; finish: it is done, with outcome",
            ),
        ]
        | None
    ) = None
    outcome: Annotated[Any, Meta(description="With effect 'finish': what the action returned")] = None
    fencing_token: Token | None = None
    executor_id: ClaimedBy | None = None


class CompleteTask(Arguments, frozen=True):
    """``complete_task``."""

    task_id: TaskId
    result: Annotated[Json, Meta(description="Checked against the task's output schema")]
    execution_metrics: Annotated[Json, Meta(description="promptTokens, completionTokens, cost, seconds …")] = {}
    fencing_token: Token | None = None
    executor_id: ClaimedBy | None = None


class FailTask(Arguments, frozen=True):
    """``fail_task``."""

    task_id: TaskId
    error: Annotated[str, Meta(min_length=1, max_length=10_000)]
    diagnostics: Json = {}
    retryable: Annotated[bool, Meta(description="false: do not try again")] = True
    fencing_token: Token | None = None
    executor_id: ClaimedBy | None = None


class SearchKnowledge(Arguments, frozen=True):
    """``search_knowledge``."""

    query: Annotated[str, Meta(min_length=1, max_length=10_000)]
    type: Annotated[KnowledgeType | None, Meta(description="Only entries of this kind")] = None
    limit: Annotated[float, Meta(ge=1, le=100)] = 10
    spaces: Annotated[list[Space], Meta(max_length=100, description="Only these spaces; absent: all you may read")] | None = None


class StoreKnowledge(Arguments, frozen=True):
    """``store_knowledge``."""

    type: KnowledgeType
    content: Annotated[Text, Meta(min_length=1)]
    metadata: Json = {}
    space: Annotated[Space | None, Meta(description="Absent: the one space you may write to, or 'default'")] = None
    related_entries: Annotated[list[Name], Meta(max_length=100)] = []
    key: Annotated[Name | None, Meta(description="The same key again replaces the entry")] = None


class DelegateSubtask(Arguments, frozen=True):
    """``delegate_subtask``."""

    parent_task_id: TaskId
    subtask_description: Annotated[Text, Meta(min_length=1)]
    type: Annotated[Name | None, Meta(description="Task type; absent: that of the parent")] = None
    input_data: Json = {}
    priority: Annotated[int, Meta(ge=0, le=100)] = 50
    executor_type: ExecutorType | None = None
    dependencies: Annotated[list[Name], Meta(max_length=1000, description="Ids of tasks that come first")] = []
    output_schema: Json | None = None
    deadline: Annotated[float | None, Meta(description="Unix seconds")] = None
    timeout_seconds: Annotated[float, Meta(gt=0)] | None = None
    metadata: Json = {}
    key: Annotated[Name | None, Meta(description="Absent: made from the arguments, so the same call again returns the same subtask")] = None
    fencing_token: Token | None = None
    executor_id: ClaimedBy | None = None


A = TypeVar("A", bound=Arguments)
_DEFS: Final = "$defs"


def read(kind: type[A], given: Mapping[str, Any]) -> A:
    """The arguments of a call; ``invalid_request`` says which one is wrong, or that one is no JSON that could be kept."""
    try:
        msgspec.json.encode(given)  # lone surrogates, nesting without end
        return msgspec.convert(dict(given), kind)
    except (ValueError, TypeError, RecursionError) as error:  # msgspec's own are ValueErrors
        fields = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise ApplianceError("invalid_request", f"malformed call: {error}", hint=f"parameters: {fields}") from error


def schema(kind: type[Arguments]) -> Json:
    """JSON Schema of a tool's parameters, an object at its root."""
    whole = msgspec.json.schema(kind)
    definitions = dict(cast("Json", whole[_DEFS]))
    root: Json = definitions.pop(kind.__name__)
    root.pop("title", None)
    root.pop("description", None)
    return {**root, _DEFS: definitions} if definitions else root


def raw(value: object) -> msgspec.Raw:
    """A JSON value as it is carried."""
    return msgspec.Raw(msgspec.json.encode(value))
