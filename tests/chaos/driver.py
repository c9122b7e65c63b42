"""Whoever uses the box in a chaos run: submits, decides, cancels, pauses. Tries again until it is answered, and writes down what it was told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from appliance.contracts.orchestrator.v1.client import OrchestratorClient
from appliance.contracts.orchestrator.v1.values import ApprovalRequest, ExecutorType, TaskSpec, TaskStatus
from appliance.kit.errors import ApplianceError
from services.orchestrator.identifiers import TASK, derived_id
from tests.chaos.plan import Plan, PlannedTask, Submission
from tests.chaos.record import Record
from tests.chaos.replica_process import driver

T = TypeVar("T")
AGAIN = frozenset({"unavailable", "overloaded", "upstream_timeout", "cancelled", "disk_full"})
PATIENCE_SECONDS = 150.0
CALL_SECONDS = 30.0
_CONTROL_CODES = frozenset({"task_state", "not_found"})


async def persistent(clients: list[OrchestratorClient], call: Callable[[OrchestratorClient], Awaitable[T]], rng: random.Random) -> T:
    """``call`` on one replica after the other until one answers; an answer may be an error that says no."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = 0.05
    while True:
        client = rng.choice(clients)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await call(client)
        except TimeoutError:
            error: Exception = TimeoutError(f"no answer in {CALL_SECONDS:g} s")
        except ApplianceError as refused:
            if refused.code not in AGAIN:
                raise
            error = refused
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody answered for {PATIENCE_SECONDS:g} s: {error!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)


class Driver:
    """Runs the plan's submissions over ``seconds`` and sees every task to its end.

    Args:
        clients: one per replica.
        plan: what to submit.
        record: where acknowledgements go.
        seconds: how long the plan takes (``at`` 1.0).
    """

    def __init__(self, clients: list[OrchestratorClient], plan: Plan, record: Record, seconds: float) -> None:
        self._clients = clients
        self._plan = plan
        self._record = record
        self._seconds = seconds
        self._rng = random.Random(plan.seed + 1)
        self._decided: set[str] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._waits: dict[str, asyncio.Event] = {key: asyncio.Event() for key in plan.tasks}
        self.failures: list[str] = []

    async def submit_all(self) -> None:
        """Every submission at its time; returns when all are acknowledged."""
        begin = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for submission in self._plan.submissions:
                await asyncio.sleep(max(0.0, begin + submission.at * self._seconds - asyncio.get_running_loop().time()))
                group.create_task(self._submit(submission))

    async def decide_forever(self) -> None:
        """Answers to questions, as their context asks for."""
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    for request in await self._rng.choice(self._clients).approvals.list(driver()):
                        if request.id not in self._decided:
                            self._decided.add(request.id)
                            self._soon(self._decide(request))
            except (ApplianceError, TimeoutError):
                pass
            await asyncio.sleep(0.25)

    async def ended(self, seconds: float) -> list[str]:
        """Wait until every task is terminal, ``seconds`` at most; those that are not."""
        deadline = time.monotonic() + seconds
        slots = asyncio.Semaphore(64)

        async def wait(task_id: str) -> str | None:
            async with slots:
                while (left := deadline - time.monotonic()) > 0:
                    task = await persistent(self._clients, lambda client: client.tasks.wait(driver(), task_id, min(left, 5.0)), self._rng)
                    if task.status.is_terminal:
                        return None
                return task_id

        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(wait(one)) for one in (*self._record.submitted.values(), *self._record.children)]
        if self._working:
            await asyncio.wait(self._working, timeout=max(1.0, deadline - time.monotonic()))
        return [one for task in waits if (one := task.result()) is not None]

    async def _submit(self, submission: Submission) -> None:
        inside = {one.key for one in submission.tasks}
        for task in submission.tasks:
            for key in task.dependencies:
                if key not in inside:
                    await self._waits[key].wait()
        specs = [_spec(task, inside, self._plan) for task in submission.tasks]
        answers = await asyncio.gather(*(self._persist(lambda client: client.tasks.submit(driver(), specs)) for _ in range(submission.copies)))
        for made in answers:
            for task, planned in zip(made, submission.tasks, strict=True):
                if self._record.submitted.setdefault(planned.key, task.id) != task.id or task.id != task_id_of(planned):
                    self._record.wrong.append(f"{planned.key} was acknowledged as {task.id} and as {self._record.submitted[planned.key]}")
        for planned in submission.tasks:
            if planned.type in {"chaos.steps", "chaos.plain"}:
                self._record.sums[task_id_of(planned)] = sum(planned.input_data["numbers"])
            self._waits[planned.key].set()
            if planned.control is not None:
                self._soon(self._control(planned))

    async def _control(self, planned: PlannedTask) -> None:
        await asyncio.sleep(planned.control_after)
        task_id, record = task_id_of(planned), self._record
        try:
            match planned.control:
                case "cancel":
                    await self._persist(lambda client: client.control.cancel(driver(), task_id, "as planned"))
                    record.cancelled.add(task_id)
                case "pause":
                    await self._persist(lambda client: client.control.pause(driver(), task_id))
                    record.paused.add(task_id)
                    await asyncio.sleep(planned.control_after)
                    await self._persist(lambda client: client.control.resume(driver(), task_id))
                    record.resumed.add(task_id)
                case "priority":
                    await self._persist(lambda client: client.control.set_priority(driver(), task_id, 100 - planned.priority))
                case "retry":
                    await self._retry(task_id)
        except ApplianceError as error:
            if error.code not in _CONTROL_CODES or error.code == "not_found":
                record.wrong.append(f"{planned.control} of {task_id}: {error.code} {error.message}")

    async def _retry(self, task_id: str) -> None:
        for _ in range(4):
            task = await self._persist(lambda client: client.tasks.wait(driver(), task_id, 5.0))
            if task.status is TaskStatus.FAILED:
                await self._persist(lambda client: client.control.retry(driver(), task_id))
                return
            if task.status.is_terminal:
                return

    async def _decide(self, request: ApprovalRequest) -> None:
        context = msgspec.json.decode(request.context)
        kind = context.get("decision")
        if kind == "expire":
            return
        await asyncio.sleep(context.get("delay", 0))
        text = msgspec.json.decode(request.arguments)["text"]
        modified = msgspec.Raw(msgspec.json.encode({"text": f"{text} as changed"})) if kind == "modify" else None
        decision = "reject" if kind == "reject" else "approve"
        try:
            for _ in range(self._rng.choice((1, 1, 2))):
                answer = await self._persist(
                    lambda client: client.approvals.decide(driver(), request.id, decision, "as planned", modified_arguments=modified)
                )
                self._record.decisions[request.id] = str(answer.status)
        except ApplianceError as error:
            if error.code not in {"task_state", "not_found"}:
                self._record.wrong.append(f"decision on {request.id}: {error.code} {error.message}")
            elif error.code == "not_found":
                self._decided.discard(request.id)  # that replica does not know it yet

    async def _persist(self, call: Callable[[OrchestratorClient], Awaitable[T]]) -> T:
        return await persistent(self._clients, call, self._rng)

    def _soon(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failures.append(repr(task.exception()))


def task_id_of(planned: PlannedTask) -> str:
    """The id that its key must lead to."""
    return derived_id(TASK, planned.space, driver().account, planned.key)


def _spec(task: PlannedTask, inside: set[str], plan: Plan) -> TaskSpec:
    return TaskSpec(
        type=task.type, space=task.space, key=task.key, input_data=msgspec.Raw(msgspec.json.encode(task.input_data)), priority=task.priority,
        dependencies=tuple(key if key in inside else task_id_of(plan.tasks[key]) for key in task.dependencies), retry=task.retry,
        timeout_seconds=task.timeout_seconds, executor_type=ExecutorType.CLAUDE_OPUS if task.type == "chaos.agent" else None,
    )  # fmt: skip
