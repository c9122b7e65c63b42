"""An approved action that leaves a trace: one line in a file that no replica owns. Who did it twice is seen there, whatever the log says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, Task
from services.orchestrator.ports import ExecutionResult, TaskContext

ACTION = "chaos.write"


def write_effect(path: Path, approval_id: str, task_id: str, text: str) -> None:
    """One line, whole or not at all (a short write in append mode)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode([approval_id, task_id, text]) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_effects(path: Path) -> list[tuple[str, str, str]]:
    """(approval, task, text) of every line."""
    if not path.exists():
        return []
    return [tuple(msgspec.json.decode(line)) for line in path.read_bytes().splitlines()]


class EffectExecutor:
    """An executor of the box for tasks of the type ``chaos.effect``: asks, begins, writes, finishes. Satisfies ``ExecutorAdapter``."""

    kind = ExecutorType.SPECIALIZED_ML
    max_load = 64

    def __init__(self, path: Path) -> None:
        self._path = path

    async def execute(self, task: Task, context: TaskContext) -> ExecutionResult:
        data = msgspec.json.decode(task.input_data)
        texts = []
        for number in range(data["effects"]):
            effect = await context.effect(ACTION, {"text": f"{task.key}/{number}"}, {"decision": data["decision"], "delay": data.get("delay", 0)})
            arguments = effect.request.modified_arguments or effect.request.arguments
            text = msgspec.json.decode(arguments)["text"]
            if await effect.begin() is None:
                await asyncio.sleep(data.get("sleep", 0))
                await asyncio.to_thread(write_effect, self._path, effect.request.id, task.id, text)
                await effect.finish(msgspec.Raw(msgspec.json.encode(text)))
            texts.append(text)
        return ExecutionResult(msgspec.Raw(msgspec.json.encode({"texts": texts})))

    def capabilities(self) -> ExecutorCapabilities:
        return ExecutorCapabilities(supported_task_types=("chaos.effect",))

    async def status(self) -> str:
        return "writes lines"

    async def cancel(self, task_id: str) -> None:
        """The claim's own task is cancelled; that is enough."""
