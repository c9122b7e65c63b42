"""What an executor sees of the box, without a box: :class:`RecordingContext` keeps everything that an attempt says. It has the shape of ``TaskContext``.

``sample_task`` makes a task as an executor gets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from appliance.contracts.orchestrator.v1.values import EMPTY, NULL, ApprovalRequest, ApprovalStatus, StepRecord, Task, TaskStatus
from appliance.kit.errors import ApplianceError


def sample_task(
    kind: str, data: object = None, *, task_id: str = "t_1", attempt: int = 1, metadata: Mapping[str, object] | None = None, description: str = ""
) -> Task:
    """A task of type ``kind`` that an executor holds, with ``data`` as its input."""
    return Task(
        id=task_id, type=kind, description=description, input_data=msgspec.Raw(msgspec.json.encode({} if data is None else data)), priority=50, deadline=None,
        dependencies=(), assigned_executor="box", status=TaskStatus.EXECUTING, created_at=0.0, updated_at=0.0, checkpoints=(),
        metadata=msgspec.Raw(msgspec.json.encode(metadata)) if metadata else EMPTY, space="default", owner="tester", attempt=attempt, fencing_token=1,
    )  # fmt: skip


@dataclass(slots=True)
class RecordingContext:
    """Keeps what an attempt records; pass the same one to the next attempt, as the box would.

    Attributes:
        steps: finished steps.
        order: names as they were recorded; ``lasts`` those with ``last``.
        batches: sizes of what was recorded together.
        output_schema: what the result must satisfy.
        gate: when set, a step is durable only once it is set (what the box is slow at).
        refuse: code of the error that every call raises from now on (a claim that ended).
        decide: arguments that an approval changes, None = as asked; ``reject`` refuses it.
        begun: effects that were begun; one that was begun and not finished is ``effect_unknown``.
    """

    steps: dict[str, msgspec.Raw] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    lasts: list[str] = field(default_factory=list)
    reports: list[tuple[float, str]] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    output_schema: msgspec.Raw | None = None
    gate: asyncio.Event | None = None
    refuse: str | None = None
    decide: Mapping[str, object] | None = None
    reject: bool = False
    asked: list[tuple[str, dict[str, Any], Any]] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    outcomes: dict[str, msgspec.Raw] = field(default_factory=dict)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)

    async def record_step(self, name: str, result: msgspec.Raw, *, last: bool = False) -> None:
        self._check()
        self.order.append(name)
        self.recorded.set()
        if last:
            self.lasts.append(name)
        if self.gate is not None:
            await self.gate.wait()
            self._check()
        self.steps[name] = result

    async def record_steps(self, records: Sequence[StepRecord]) -> None:
        self._check()
        self.batches.append(len(records))
        for record in records:
            await self.record_step(record.name, record.result)

    async def report(self, progress: float, note: str = "") -> None:
        self._check()
        self.reports.append((progress, note))
        self.recorded.set()

    async def save(self, state: object, executed_actions: Sequence[object] = (), remaining_plan: object = None) -> str:  # noqa: ARG002 - of the port
        self._check()
        self.states.append(state)
        return f"c_{len(self.states)}"

    async def restore(self) -> object | None:
        self._check()
        return self.states[-1] if self.states else None

    async def effect(self, action: str, arguments: Mapping[str, object], context: Mapping[str, object] | None = None) -> RecordedEffect:
        self._check()
        self.asked.append((action, dict(arguments), context))
        if self.gate is not None:
            await self.gate.wait()
        if self.reject:
            raise ApplianceError("forbidden", f"{action} was rejected")
        return RecordedEffect(self, action, self.decide if self.decide is not None else arguments)

    def _check(self) -> None:
        if self.refuse is not None:
            raise ApplianceError(self.refuse, "scripted refusal")


class RecordedEffect:
    """An approved action of a :class:`RecordingContext`."""

    def __init__(self, context: RecordingContext, action: str, arguments: Mapping[str, object]) -> None:
        body = msgspec.json.encode(arguments, order="sorted")
        self._context = context
        self._id = f"a_{sha256(action.encode() + body).hexdigest()[:8]}"
        self._request = ApprovalRequest(
            id=self._id, task_id="t_1", space="default", action=action, arguments=msgspec.Raw(body), arguments_digest=sha256(body).hexdigest(), context=EMPTY,
            requested_by="box", requested_at=0.0, expires_at=None, default_action="reject", status=ApprovalStatus.APPROVED,
        )  # fmt: skip

    @property
    def request(self) -> ApprovalRequest:
        return self._request

    async def begin(self) -> msgspec.Raw | None:
        if self._id in self._context.outcomes:
            return self._context.outcomes[self._id]
        if self._id in self._context.begun:
            raise ApplianceError("effect_unknown", "nobody knows whether it was done")
        self._context.begun.add(self._id)
        return None

    async def finish(self, outcome: msgspec.Raw = NULL) -> None:
        self._context.outcomes[self._id] = outcome
