"""Executors outside of the box in a chaos run: they claim over gRPC from any replica, report, ask, delegate, fall silent, and try stale tokens."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.client import OrchestratorClient
from appliance.contracts.orchestrator.v1.values import ApprovalStatus, ExecutorCapabilities, ExecutorType, StepRecord, Task, TaskSpec
from appliance.kit.errors import ApplianceError
from tests.chaos.driver import persistent
from tests.chaos.effects import ACTION, write_effect
from tests.chaos.record import Record
from tests.chaos.replica_process import agent

LOAD = 8
_CAPABILITIES = ExecutorCapabilities(supported_task_types=("chaos.agent",))
_ENDED = frozenset({"stale_claim", "task_state", "not_found"})


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class Agent:
    """One executor. :meth:`run` works for ever."""

    def __init__(self, name: str, clients: list[OrchestratorClient], effects: Path, record: Record, seed: int) -> None:
        self._name = name
        self._clients = clients
        self._effects = effects
        self._record = record
        self._rng = random.Random(f"{seed}-{name}")
        self._tokens: dict[str, int] = {}
        self.failures: list[str] = []

    async def run(self) -> None:
        await self._call("executors", "register", self._name, ExecutorType.CLAUDE_OPUS, _CAPABILITIES, max_load=LOAD)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._live())
            for _ in range(LOAD):
                group.create_task(self._work())

    async def _live(self) -> None:
        """Signs of life; and what was assigned here without our hearing of it (the reply was lost) is taken up."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._once("executors", "heartbeat", self._name)
                    for task in await self._once("tasks", "list", TaskFilter(executor=self._name, limit=100)):
                        if not task.status.is_terminal and task.id not in self._tokens:
                            task = await self._once("tasks", "get", task.id)
                            mine = task.assigned_executor == self._name and task.fencing_token and not task.status.is_terminal
                            if mine and task.id not in self._tokens:
                                group.create_task(self._do(task))
                except (ApplianceError, TimeoutError) as error:
                    self._note(error)
                await asyncio.sleep(1.0)

    async def _work(self) -> None:
        while True:
            try:
                task = await self._once("work", "claim", self._name, wait_seconds=1.0)
            except (ApplianceError, TimeoutError) as error:
                self._note(error)
                await asyncio.sleep(0.2)
                continue
            if task is not None and task.id not in self._tokens:
                await self._do(task)

    async def _do(self, task: Task) -> None:
        self._tokens[task.id] = task.fencing_token
        try:
            await self._carry_out(task, task.fencing_token, msgspec.json.decode(task.input_data))
        except ApplianceError as error:
            if error.code == "effect_unknown":
                await self._fail(task, task.fencing_token, error.message)
            elif error.code not in _ENDED:
                self.failures.append(f"{self._name} {task.id}: {error.code} {error.message}")
        except TimeoutError as error:
            self.failures.append(f"{self._name} {task.id}: {error}")
        finally:
            self._tokens.pop(task.id, None)

    async def _carry_out(self, task: Task, token: int, data: dict[str, Any]) -> None:
        mode = data.get("mode", "complete")
        await self._call("work", "progress", task.id, token, 0.5, "half", steps=[StepRecord("one", raw(1))])
        self._record.steps.append((task.id, "one"))
        first = task.attempt <= data.get("times", 1)
        if mode == "silent" and first:
            await asyncio.sleep(8.0)  # longer than the attempt may take
        elif mode == "fail" and first:
            await self._fail(task, token, "as planned")
            return
        elif mode in {"later", "checkpoint"}:
            saved = await self._call("work", "checkpoint", task.id, token, raw({"token": token}), raw([]), raw({}))
            self._record.checkpoints.append((task.id, saved.id))
            if mode == "later" and len(task.checkpoints) == 0:
                await self._call("claims", "continue_later", task.id, token, saved.id, "as planned")
                return
        elif mode == "delegate":
            for number in range(data["times"]):
                spec = TaskSpec(type="chaos.steps", key=f"{task.key}-child{number}", input_data=raw({"steps": 2, "numbers": [number]}))
                child = await self._call("work", "delegate", task.id, token, spec)
                self._record.children[child.id] = task.id
        elif mode == "effect" and not await self._effect(task, token, data):
            return
        await self._complete(task, token)

    async def _effect(self, task: Task, token: int, data: dict[str, Any]) -> bool:
        """Ask, wait, begin, write, finish; False when it was refused (the task has failed then)."""
        context = raw({"decision": data["decision"], "delay": data["delay"]})
        arguments = raw({"text": f"{task.key} by agent"})
        request = await self._call(
            "approvals", "request", task.id, token, ACTION, arguments, context, expires_in_seconds=6.0, default_action=data["default"]
        )
        while request.status is ApprovalStatus.PENDING:
            request = await self._call("approvals", "wait", request.id, 2.0)
        permitted = request.status in {ApprovalStatus.APPROVED, ApprovalStatus.MODIFIED}
        if not permitted and not (request.status is ApprovalStatus.EXPIRED and request.default_action == "approve"):
            await self._fail(task, token, f"{request.status}", retryable=False)
            return False
        if await self._call("claims", "begin_effect", task.id, token, request.id) is None:
            text = msgspec.json.decode(request.modified_arguments or request.arguments)["text"]
            write_effect(self._effects, request.id, task.id, text)
            await self._call("claims", "finish_effect", task.id, token, request.id, raw("written"))
            self._record.effects.add(request.id)
        return True

    async def _complete(self, task: Task, token: int) -> None:
        result = {"by": self._name, "token": token}
        if self._rng.random() < 0.3:
            await self._must_be_refused(task, token)
        for _ in range(self._rng.choice((1, 1, 2))):
            await self._call("work", "complete", task.id, token, raw(result))
            self._record.completed[task.id] = bytes(raw(result))
        if self._rng.random() < 0.3:
            await self._must_be_refused(task, token)

    async def _must_be_refused(self, task: Task, token: int) -> None:
        """A token that was never this task's, on a task that we hold or held."""
        try:
            await self._call("work", "complete", task.id, token - 1, raw({"by": "nobody"}))
        except ApplianceError as error:
            if error.code not in _ENDED:
                self._record.wrong.append(f"a stale token on {task.id} was answered with {error.code}")
            return
        self._record.wrong.append(f"a stale token on {task.id} was accepted")

    async def _fail(self, task: Task, token: int, message: str, *, retryable: bool = True) -> None:
        try:
            await self._call("work", "fail", task.id, token, message, retryable=retryable)
        except ApplianceError as error:
            if error.code not in _ENDED:
                raise

    async def _call(self, service: str, method: str, *arguments: Any, **named: Any) -> Any:
        """On any replica, until it is answered."""
        return await persistent(self._clients, lambda client: getattr(getattr(client, service), method)(agent(), *arguments, **named), self._rng)

    async def _once(self, service: str, method: str, *arguments: Any, **named: Any) -> Any:
        client = self._rng.choice(self._clients)
        async with asyncio.timeout(15.0):
            return await getattr(getattr(client, service), method)(agent(), *arguments, **named)

    def _note(self, error: Exception) -> None:
        if isinstance(error, ApplianceError) and error.code not in {
            "unavailable",
            "overloaded",
            "upstream_timeout",
            "cancelled",
            "not_found",
            "disk_full",
            *_ENDED,
        }:
            self.failures.append(f"{self._name}: {error.code} {error.message}")
