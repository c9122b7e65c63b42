"""What the orchestrator needs from outside: a log, an object store, executors. Adapters lie beside this file, ``<technology>_<port>.py``.

The conformance checks of the log and the store are in ``appliance/testing/check_event_log.py`` and ``check_object_store.py``; real servers and fakes pass the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import msgspec

from appliance.contracts.orchestrator.v1.log import Entry, Extent, LostRaceError, Recorded
from appliance.contracts.orchestrator.v1.values import ApprovalRequest, ExecutorCapabilities, ExecutorType, StepRecord, Task

__all__ = [
    "ApprovedEffect",
    "ContinueLaterError",
    "Entry",
    "EventLog",
    "ExecutionFailedError",
    "ExecutionResult",
    "ExecutorAdapter",
    "Extent",
    "Leases",
    "LostRaceError",
    "NamesModels",
    "ObjectStore",
    "Recorded",
    "TaskContext",
]  # the values of the log are handed on


class EventLog(Protocol):
    """A replicated, durable log with an order per subject and one over all. Every method raises ApplianceError ``unavailable`` when it cannot be reached."""

    async def append(self, entries: Sequence[Entry]) -> Sequence[int]:
        """Append all or none (distinct subjects); returns their sequences once they are replicated and on disk.

        Concurrent calls share one commit. A lost reply is resolved inside: the outcome is known when this returns or raises.

        Raises:
            LostRaceError: an expectation did not hold.
            ApplianceError: ``unavailable``: the log cannot be reached *and* nobody knows whether the entries were stored; a repeated call with the
                same entries tells. ``too_large``; ``disk_full``.
        """
        ...

    async def read(self, subject: str, after: int = 0) -> Sequence[Recorded]:
        """Entries of one subject (``>`` as its last token matches all below, ``*`` any one token), oldest first, behind sequence ``after``."""
        ...

    def tail(self, after: int) -> AsyncIterator[Sequence[Recorded]]:
        """Everything behind sequence ``after``, in order, without gaps, for ever; an empty batch says that the end was reached for now.

        Survives reconnects and elections inside. Raises ``event_unknown`` when ``after`` lies before what the log still has (purged): load a snapshot.
        """
        ...

    async def purge(self, subject: str, *, keep: int = 0, below: int | None = None) -> None:
        """Drop entries of a subject: all but the newest ``keep``, or those below a sequence."""
        ...

    async def last_sequence(self) -> int:
        """Sequence of the newest entry, 0 when empty."""
        ...

    async def extent(self) -> Extent:
        """Where it begins and ends, and what it takes."""
        ...

    async def check(self) -> str:
        """One line for ``/readyz``: server version, replicas, bytes. Raises ``unavailable`` or ``log_unsafe``."""
        ...


class ObjectStore(Protocol):
    """Snapshots and checkpoints: immutable blobs by name, durable when ``put`` returns."""

    async def put(self, name: str, data: bytes) -> None:
        """Store; the same name again replaces."""
        ...

    async def get(self, name: str) -> bytes | None:
        """None when there is none; raises ``snapshot_altered`` when its digest does not match."""
        ...

    async def delete(self, name: str) -> None:
        """Absent is fine."""
        ...

    async def names(self, prefix: str) -> Sequence[str]:
        """Those that begin with ``prefix``."""
        ...


class Leases(Protocol):
    """Until when each executor's claims hold: the newest value per executor, durable, seen by every replica."""

    async def renew(self, executor: str, incarnation: int, until: float) -> None:
        """Say that it lives."""
        ...

    def watch(self) -> AsyncIterator[tuple[str, int, float]]:
        """(executor, incarnation, until): what stands now, then every change, for ever."""
        ...


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """How an attempt ended well. ``result`` and ``metrics`` are JSON; ``metrics`` may hold ``promptTokens``, ``completionTokens``, ``cost``."""

    result: msgspec.Raw
    metrics: Mapping[str, object] = field(default_factory=dict)


class ExecutionFailedError(Exception):
    """How an attempt ended badly. ``retryable`` False goes to the dead letters at once."""

    def __init__(
        self, message: str, *, code: str = "executor_failed", retryable: bool = True, diagnostics: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.diagnostics = dict(diagnostics or {})


class ContinueLaterError(Exception):
    """The attempt cannot finish (context or time is used up): give the task back as ``requires_continuation``."""


class TaskContext(Protocol):
    """What an executor may ask of the box while it works on one claim. Calls of a claim that has ended raise ``stale_claim``: stop then."""

    @property
    def steps(self) -> Mapping[str, msgspec.Raw]:
        """Results of steps that are finished: do not run them again."""
        ...

    async def record_step(self, name: str, result: msgspec.Raw, *, last: bool = False) -> None:
        """Returns when the step is durable: only then begin the next one.

        ``last`` says that the attempt completes right after: the record may wait for the completion and share its commit.
        """
        ...

    async def record_steps(self, records: Sequence[StepRecord]) -> None:
        """Several at once, as :meth:`record_step`: steps of an attempt that ran side by side."""
        ...

    @property
    def output_schema(self) -> msgspec.Raw | None:
        """JSON Schema that the result must satisfy, None when the task has none."""
        ...

    async def report(self, progress: float, note: str = "") -> None:
        """Progress 0–1."""
        ...

    async def save(self, state: object, executed_actions: Sequence[object] = (), remaining_plan: object = None) -> str:
        """Keep a checkpoint; its id."""
        ...

    async def restore(self) -> object | None:
        """State of the newest checkpoint, None when there is none."""
        ...

    async def effect(self, action: str, arguments: Mapping[str, object], context: Mapping[str, object] | None = None) -> ApprovedEffect:
        """Ask for approval (policies may answer at once) and wait for it. Raises ExecutionFailedError ``rejected``; ``effect_unknown``."""
        ...


class ApprovedEffect(Protocol):
    """An approved action. ``begin`` before carrying it out, ``finish`` after."""

    @property
    def request(self) -> ApprovalRequest:
        """The approval with the arguments to use (the modified ones, when a person changed them)."""
        ...

    async def begin(self) -> msgspec.Raw | None:
        """None: carry it out now, once. Otherwise: its outcome, it is done already."""
        ...

    async def finish(self, outcome: msgspec.Raw) -> None:
        """It is done."""
        ...


class ExecutorAdapter(Protocol):
    """A kind of executor that the box runs itself (document 000 §4.4: execute, getCapabilities, getStatus, cancel)."""

    @property
    def kind(self) -> ExecutorType:
        """For the registry."""
        ...

    @property
    def max_load(self) -> int:
        """How many tasks at once."""
        ...

    async def execute(self, task: Task, context: TaskContext) -> ExecutionResult:
        """Do it. Raises ExecutionFailedError, ContinueLaterError, or lets ApplianceError of ``context`` pass."""
        ...

    def capabilities(self) -> ExecutorCapabilities:
        """What it can do."""
        ...

    async def status(self) -> str:
        """One line; raises ApplianceError when it cannot work now (nothing is assigned to it then)."""
        ...

    async def cancel(self, task_id: str) -> None:
        """Stop working on a task, soon; ``execute`` then ends. Unknown ids are fine."""
        ...


@runtime_checkable
class NamesModels(Protocol):
    """An adapter that works with models which may change while the box runs."""

    def models(self) -> tuple[str, ...]:
        """Name and version of each that a claim made now begins with; kept with the claim."""
        ...
