"""What an executor of the box may ask while it works on one claim: the ``TaskContext`` of ``ports`` on this replica's own use cases.

Invariants:
1. Every call carries the fencing token of the claim: after the claim has ended every one of them raises ``stale_claim``.
2. A step is durable when ``record_step`` returns; a ``last`` step becomes durable with the completion, in the same entry of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import NULL, ApprovalRequest, ApprovalStatus, StepRecord
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.ports import ExecutionFailedError
from services.orchestrator.questions import Questions
from services.orchestrator.replica import Replica
from services.orchestrator.task_checkpoints import TaskCheckpoints

ASK_AGAIN_SECONDS: Final = 30.0


class AttemptClock:
    """The time limit of an attempt, which stands still while a person is asked."""

    def __init__(self) -> None:
        self._timeout: asyncio.Timeout | None = None
        self._stops = 0
        self._left = 0.0

    def limit(self, seconds: float) -> asyncio.Timeout:
        """``async with clock.limit(seconds)``: raises TimeoutError when they are over."""
        self._timeout = asyncio.timeout(seconds)
        return self._timeout

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not run inside; blocks may overlap."""
        timeout, loop = self._timeout, asyncio.get_running_loop()
        self._stops += 1
        if self._stops == 1 and timeout is not None:
            self._left = (timeout.when() or loop.time()) - loop.time()
            timeout.reschedule(None)
        try:
            yield
        finally:
            self._stops -= 1
            if not self._stops and timeout is not None and not timeout.expired():
                timeout.reschedule(loop.time() + self._left)


class ClaimContext:
    """One claim of one task by one of the box's executors."""

    __slots__ = ("_checkpoints", "_lease_seconds", "_questions", "_replica", "by", "clock", "outstanding", "state")

    def __init__(self, replica: Replica, questions: Questions, checkpoints: TaskCheckpoints, state: TaskState, lease_seconds: float, by: str) -> None:
        self._replica = replica
        self._questions = questions
        self._checkpoints = checkpoints
        self._lease_seconds = lease_seconds
        self.state = state
        self.by = by
        self.outstanding: tuple[StepRecord, ...] = ()
        self.clock = AttemptClock()

    @property
    def steps(self) -> Mapping[str, msgspec.Raw]:
        """Finished steps, those of earlier claims included."""
        return self.state.steps

    @property
    def output_schema(self) -> msgspec.Raw | None:
        """What the result must satisfy."""
        return self.state.output_schema

    async def record_step(self, name: str, result: msgspec.Raw, *, last: bool = False) -> None:
        """See ``ports.TaskContext``."""
        record = StepRecord(name=name, result=result)
        if last:
            self.outstanding = (*self.outstanding, record)
            return
        await self._report(steps=(record,))

    async def record_steps(self, records: Sequence[StepRecord]) -> None:
        """Several at once, in one entry of the log."""
        await self._report(steps=tuple(records))

    async def report(self, progress: float, note: str = "") -> None:
        """See ``ports.TaskContext``."""
        await self._report(progress=progress, note=note)

    async def save(self, state: object, executed_actions: Sequence[object] = (), remaining_plan: object = None) -> str:
        """See ``ports.TaskContext``."""
        parts = [msgspec.Raw(msgspec.json.encode(part)) for part in (state, list(executed_actions), remaining_plan)]
        checkpoint = await self._checkpoints.save(self.state.id, self.state.token, *parts, by=self.by)
        return checkpoint.id

    async def restore(self) -> object | None:
        """See ``ports.TaskContext``."""
        current = await self._replica.state(self.state.id)
        if current is None or current.restart_from is None:
            return None
        checkpoint = await self._checkpoints.resolve(current, current.restart_from)
        restored: object = msgspec.json.decode(checkpoint.state_snapshot)
        return restored

    async def effect(self, action: str, arguments: Mapping[str, object], context: Mapping[str, object] | None = None) -> ClaimEffect:
        """See ``ports.TaskContext``."""
        encoded, facts = msgspec.Raw(msgspec.json.encode(arguments)), msgspec.Raw(msgspec.json.encode(context or {}))
        token = self.state.token
        request = await self._questions.ask(self.state.id, token, action, encoded, facts, None, "reject", by=self.by)
        with self.clock.stopped():  # a person may take days; the attempt's time does not run meanwhile
            while request.status is ApprovalStatus.PENDING:
                request = await self._questions.answer(self.state.id, request.id, ASK_AGAIN_SECONDS)
                self._must_hold()
        granted = request.status in {ApprovalStatus.APPROVED, ApprovalStatus.MODIFIED}
        if not granted and not (request.status is ApprovalStatus.EXPIRED and request.default_action == "approve"):
            raise ExecutionFailedError(f"the action {action} was not approved: {request.reason or request.status}", code="rejected", retryable=False)
        return ClaimEffect(self, request)

    async def begin(self, approval_id: str) -> msgspec.Raw | None:
        """Mark the effect as begun; its outcome when it is done already."""
        command = cm.BeginEffect(token=self.state.token, approval=approval_id)
        self.state = await self._replica.execute(self.state.id, None, command, by=self.by)
        approval = self.state.approval(approval_id)
        return approval.outcome if approval is not None and approval.effect == "finished" else None

    async def finish(self, approval_id: str, outcome: msgspec.Raw) -> None:
        """Mark the effect as done."""
        command = cm.FinishEffect(token=self.state.token, approval=approval_id, outcome=outcome or NULL)
        self.state = await self._replica.execute(self.state.id, None, command, by=self.by)

    def _must_hold(self) -> None:
        current = self._replica.projection.tasks.get(self.state.id)
        if current is None or not current.is_held or current.token != self.state.token:
            raise ApplianceError("stale_claim", "this claim of the task has ended", hint="stop working on it")

    async def _report(self, progress: float | None = None, note: str | None = None, steps: tuple[StepRecord, ...] = ()) -> None:
        lease_until = self._replica.now() + self._lease_seconds
        command = cm.Report(token=self.state.token, lease_until=lease_until, progress=progress, note=note, steps=steps)
        self.state = await self._replica.execute(self.state.id, None, command, by=self.by)


class ClaimEffect:
    """An approved action of a claim (``ports.ApprovedEffect``)."""

    __slots__ = ("_context", "request")

    def __init__(self, context: ClaimContext, request: ApprovalRequest) -> None:
        self._context = context
        self.request = request

    async def begin(self) -> msgspec.Raw | None:
        """See ``ports.ApprovedEffect``."""
        return await self._context.begin(self.request.id)

    async def finish(self, outcome: msgspec.Raw) -> None:
        """See ``ports.ApprovedEffect``."""
        await self._context.finish(self.request.id, outcome)
