"""A small box for benchmarks of the orchestrator: stores, function workers and a replica, in a process of its own that may be killed.

``python -m bench.task_box FOLDER``: runs as ``FOLDER/plan.json`` says until it is killed or terminated. Owns what the benchmark reads: lines
``<what> <moment> <task> <mark>`` in ``FOLDER/<name>.steps`` (moments of ``time.monotonic``, which processes of one machine share), written when a step
reaches the executor from its worker (the names of the steps), when a task was made (``made``) or claimed (``claim``), by whomever, and when its completion is durable
(``done``); ``at`` tells when the start was where. The worker itself may write nothing (its sandbox), so the executor does it: before the next step begins.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, StepRecord, Task, TaskSpec
from appliance.identity.principal import ADMIN, Principal, SpaceRole
from services.orchestrator.executors.algorithmic import AlgorithmicExecutor
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.jetstream_stores import open_stores
from services.orchestrator.ports import ExecutionResult
from services.orchestrator.settings import OrchestratorSettings

if TYPE_CHECKING:
    from services.orchestrator.bootstrap import Orchestrator
    from services.orchestrator.domain.events import Envelope
    from services.orchestrator.domain.task_state import TaskState

CALLER: Final = Principal("user:bench", "user", frozenset({ADMIN}), spaces={"default": SpaceRole.OWNER})
_AT_ONCE: Final = 250


class BoxPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a box does.

    Attributes:
        name: of its replica.
        submit: tasks of ``type`` that it makes at its start, each with ``input`` (JSON).
        slots: tasks that its worker runs at once; 0 = it has no executor.
        functions: folder of the functions' modules.
        nats_urls, credentials, replicas: of a site's servers; empty = a server of its own.
    """

    name: str = "r1"
    submit: int = 0
    type: str = "bench.recovery"
    input: msgspec.Raw = msgspec.Raw(b"{}")
    slots: int = 512
    functions: str | None = None
    nats_urls: tuple[str, ...] = ()
    credentials: str | None = None
    replicas: int = 1
    lease_seconds: float = 1.5


class StepNotes:
    """The file of a box that the benchmark reads; one write per line, so that a kill loses none that was told."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, task: str, mark: str = "") -> None:
        """Add a line."""
        os.write(self._file, f"{what} {time.monotonic():.6f} {task} {mark}\n".encode())

    def changed(self, before: TaskState | None, after: TaskState, _envelope: Envelope | None = None) -> None:
        """A listener of the projection: claims and completions."""
        if before is None:
            self.note("made", after.id)
        if after.is_held and after.token != (before.token if before is not None else 0):
            self.note("claim", after.id, after.executor or "")
        if after.status == "completed" and (before is None or before.status != "completed"):
            self.note("done", after.id, bytes(after.result).decode())


class NotingExecutor:
    """The executor of functions; the steps that come out of its worker are noted."""

    def __init__(self, settings: ExecutorSettings, notes: StepNotes) -> None:
        self._inner = AlgorithmicExecutor(settings)
        self._notes = notes
        self.kind = self._inner.kind
        self.start = self._inner.start
        self.stop = self._inner.stop
        self.status = self._inner.status
        self.cancel = self._inner.cancel

    @property
    def max_load(self) -> int:
        """See ``ExecutorAdapter``."""
        return self._inner.max_load

    def capabilities(self) -> ExecutorCapabilities:
        """See ``ExecutorAdapter``."""
        return self._inner.capabilities()

    async def execute(self, task: Task, context: Any) -> ExecutionResult:
        """See ``ExecutorAdapter``."""
        return await self._inner.execute(task, _NotingContext(context, task.id, self._notes))  # the rest is looked up


class _NotingContext:
    """A claim's context whose steps are noted before they are recorded."""

    def __init__(self, inner: Any, task_id: str, notes: StepNotes) -> None:
        self._inner = inner
        self._task_id = task_id
        self._notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def record_step(self, name: str, result: msgspec.Raw, *, last: bool = False) -> None:
        """See ``TaskContext``."""
        self._notes.note(name, self._task_id, bytes(result).decode())
        await self._inner.record_step(name, result, last=last)

    async def record_steps(self, records: Sequence[StepRecord]) -> None:
        """See ``TaskContext``."""
        for record in records:
            self._notes.note(record.name, self._task_id, bytes(record.result).decode())
        await self._inner.record_steps(records)


async def run(folder: Path, plan: BoxPlan) -> None:
    """Open it, submit, work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    notes = StepNotes(folder / f"{plan.name}.steps")
    notes.note("at", "imported")
    settings = OrchestratorSettings(
        replica=plan.name, nats_urls=plan.nats_urls, nats_credentials_file=plan.credentials, stream_replicas=plan.replicas,
        lease_seconds=plan.lease_seconds, max_open_tasks_per_space=200_000,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        executors = [NotingExecutor(_executor_settings(plan), notes)] if plan.slots else []
        starting = asyncio.gather(*(executor.start() for executor in executors))
        for executor in executors:
            stack.push_async_callback(executor.stop)
        opening = asyncio.create_task(stack.enter_async_context(open_stores(settings, folder / "nats")))
        bootstrap = await asyncio.to_thread(import_module, "services.orchestrator.bootstrap")  # while the servers start
        notes.note("at", "loaded")
        stores, _ = await opening
        notes.note("at", "stores")
        box = await stack.enter_async_context(bootstrap.open_orchestrator(stores, settings, executors, starting=starting))
        notes.note("at", "open")
        box.replica.projection.listen(task=notes.changed)
        for state in box.replica.projection.tasks.values():  # what became of the tasks before anyone listened
            notes.changed(None, state)
        await _submit(box, plan)
        notes.note("ready", plan.name)
        await stop.wait()


def _executor_settings(plan: BoxPlan) -> ExecutorSettings:
    return ExecutorSettings(slots_per_worker=plan.slots, plugins_folder=None if plan.functions is None else Path(plan.functions))


async def _submit(box: Orchestrator, plan: BoxPlan) -> None:
    spec = TaskSpec(type=plan.type, input_data=plan.input)
    for first in range(0, plan.submit, _AT_ONCE):
        await box.tasks.submit(CALLER, [spec] * min(_AT_ONCE, plan.submit - first))


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[1])
    uvloop.run(run(folder, msgspec.json.decode((folder / "plan.json").read_bytes(), type=BoxPlan)))


if __name__ == "__main__":
    main()
