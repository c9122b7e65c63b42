"""The ``algorithmic`` executor: registered Python functions in worker processes. A task's type is the name of its function.

Owns: what the messages of a job mean for its task, and who runs again after a worker was lost. Does not own: processes (``worker_group``,
``worker_process``), functions (``appliance.contracts.functions.v1``).

``async`` functions share workers. Plain functions, and tasks whose worker was lost twice for no known reason, get one to themselves. A task that lost
its worker without being at fault goes on at once on another, with the steps that it finished; that is no failure of it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, StepRecord, Task
from appliance.kit.errors import ApplianceError
from services.orchestrator.executors.frames import Call, Done, Failed, Progress, Start, Steps
from services.orchestrator.executors.retrying import retry
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.executors.worker_group import WorkerGroup
from services.orchestrator.executors.worker_process import FunctionProcess, RunningJob, WorkerLostError
from services.orchestrator.ports import ApprovedEffect, ContinueLaterError, ExecutionFailedError, ExecutionResult, TaskContext

_MOST_LOSSES: Final = 4
_SUSPECT_AFTER: Final = 2
_MOST_STEP_NAME: Final = 200
_NULL: Final = b"null"
_FINISH_ATTEMPTS: Final = 6


class AlgorithmicExecutor:
    """Satisfies ``ExecutorAdapter``. ``start`` before use, ``stop`` at the end."""

    kind: Final = ExecutorType.ALGORITHMIC

    def __init__(self, settings: ExecutorSettings | None = None) -> None:
        self._settings = settings or ExecutorSettings.read()
        self.group = WorkerGroup(self._settings)
        self._running: dict[str, set[_Attempt]] = {}
        self._functions: dict[str, tuple[bool, float]] = {}
        self._known: object = None

    @property
    def max_load(self) -> int:
        """How many tasks at once."""
        return self._settings.workers * self._settings.slots_per_worker

    async def start(self) -> None:
        """Start the workers; raises ApplianceError ``executor_failed``."""
        await self.group.start()

    async def stop(self) -> None:
        """Kill the workers; running ``execute`` calls end with ApplianceError ``unavailable``."""
        await self.group.stop()

    def capabilities(self) -> ExecutorCapabilities:
        """The functions that the newest worker has."""
        found = self.group.hello.functions if self.group.hello is not None else ()
        schemas = {name: msgspec.json.decode(schema) for name, _, _, schema in found if schema != b"{}"}
        return ExecutorCapabilities(
            supported_task_types=tuple(sorted(name for name, _, _, _ in found)), input_schema={"byTaskType": schemas} if schemas else {}
        )

    async def status(self) -> str:
        """Workers, running tasks, modules that could not be loaded."""
        if self.group.problem:
            raise ApplianceError("unavailable", f"no function worker: {self.group.problem}", hint="see the log of the orchestrator")
        hello = self.group.hello
        assert hello is not None
        line = f"{len(self.group.workers)} workers ({hello.sealed}), {len(self._running)} tasks, {len(hello.functions)} functions"
        return f"{line}; not loaded: {'; '.join(hello.problems)}" if hello.problems else line

    async def cancel(self, task_id: str) -> None:
        """Stop working on a task, soon."""
        for attempt in tuple(self._running.get(task_id, ())):
            attempt.cancel()

    async def execute(self, task: Task, context: TaskContext) -> ExecutionResult:
        """Run the function of the task's type. See ``ExecutorAdapter``."""
        is_async, timeout = self._function(task.type)
        attempt = _Attempt(task, context, timeout)
        running = self._running.setdefault(task.id, set())
        running.add(attempt)
        try:
            losses = 0
            while losses < _MOST_LOSSES:
                try:
                    return await self._run(attempt, alone=not is_async or losses >= _SUSPECT_AFTER)
                except WorkerLostError as lost:
                    _judge(lost)
                    losses += not lost.innocent
            raise ExecutionFailedError(f"its worker was lost {_MOST_LOSSES} times", diagnostics={"lost": _MOST_LOSSES})
        finally:
            running.discard(attempt)
            if not running:
                self._running.pop(task.id, None)

    def _function(self, name: str) -> tuple[bool, float]:
        """Whether it is ``async``, and how long it may take."""
        hello = self.group.hello
        if hello is not self._known and hello is not None:
            self._known = hello
            default = self._settings.timeout_seconds
            self._functions = {one: (is_async, default if timeout is None else timeout) for one, is_async, timeout, _ in hello.functions}
        found = self._functions.get(name)
        if found is None:
            raise ExecutionFailedError(f"there is no function {name!r}", code="task_invalid", retryable=False)
        return found

    async def _run(self, attempt: _Attempt, *, alone: bool) -> ExecutionResult:
        if not alone:
            try:
                return await attempt.run(await self.group.shared())
            finally:
                self.group.freed()
        async with AsyncExitStack() as stack:
            return await attempt.run(await stack.enter_async_context(self.group.solo()))


class _Attempt:
    """One claim of a task: its jobs one after the other, and the steps that became durable meanwhile."""

    def __init__(self, task: Task, context: TaskContext, timeout_seconds: float) -> None:
        self._task = task
        self._context = context
        self._timeout = timeout_seconds
        self._steps = {name: bytes(result) for name, result in context.steps.items()}
        self._job: RunningJob | None = None
        self._cancelled = False
        self._effects: dict[str, ApprovedEffect] = {}
        self._refused: Exception | None = None
        self._questions: set[asyncio.Task[None]] = set()

    def cancel(self) -> None:
        """Ask the job to end."""
        self._cancelled = True
        if self._job is not None:
            self._job.stop("cancelled")

    async def run(self, worker: FunctionProcess) -> ExecutionResult:
        """One job to its end."""
        if self._cancelled:
            raise _cancelled()
        task = self._task
        job = worker.begin(Start(0, task.id, task.type, bytes(task.input_data), bytes(task.metadata), task.attempt, self._steps), self._timeout)
        self._job, self._refused = job, None
        try:
            return await self._follow(job)
        finally:
            self._job = None
            if job.number in worker.jobs:
                job.stop("cancelled")  # nobody waits for it any more
            for question in self._questions:
                question.cancel()

    async def _follow(self, job: RunningJob) -> ExecutionResult:
        durable = 0
        queue, record = job.queue, self._context.record_step
        while True:
            message = queue.popleft() if queue else await job.next()
            kind = type(message)
            if kind is Steps:
                steps = message.steps
                while queue and type(queue[0]) is Steps:  # of branches that ran side by side
                    steps += queue.popleft().steps
                await self._record(steps)
                durable += len(steps)
                job.say_durable(durable)
            elif kind is Done:
                result = _checked(message.result)
                for name, body in message.steps:
                    await record(name, _checked_step(name, body), last=True)
                return ExecutionResult(result)
            elif kind is Failed:
                await self._record(message.steps)
                raise self._failure(message, job)
            elif kind is Progress:
                await self._context.report(message.fraction, message.note)
            elif kind is Call:
                self._ask(job, message)

    async def _record(self, steps: tuple[tuple[str, bytes], ...]) -> None:
        """Make them durable, all in one entry of the log."""
        if len(steps) == 1:
            await self._context.record_step(steps[0][0], _checked_step(*steps[0]))
        elif steps:
            await self._context.record_steps([StepRecord(name=name, result=_checked_step(name, body)) for name, body in steps])
        self._steps.update(steps)

    def _ask(self, job: RunningJob, call: Call) -> None:
        """Answer a question without holding up the job's other messages: a person may take days."""
        question = asyncio.create_task(self._answer(job, call))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)

    async def _answer(self, job: RunningJob, call: Call) -> None:
        job.clock_off()
        try:
            job.answer(call.call, await self._answered(call))
        except (ApplianceError, ExecutionFailedError) as error:
            self._refused = error
            job.answer(call.call, str(error).encode(), failed=True)
        finally:
            job.clock_on()

    async def _answered(self, call: Call) -> bytes:
        data = msgspec.json.decode(call.body)
        match call.what:
            case "save":
                return msgspec.json.encode(await self._context.save(data))
            case "restore":
                return msgspec.json.encode(await self._context.restore())
            case "effect":
                return await self._begin_effect(data)
            case "finish" if isinstance(data, dict) and data.get("approval") in self._effects:
                effect, outcome = self._effects.pop(data["approval"]), msgspec.Raw(msgspec.json.encode(data.get("outcome")))
                await retry(lambda: effect.finish(outcome), attempts=_FINISH_ATTEMPTS)  # it is done: nobody must have to find out whether
                return _NULL
        raise ExecutionFailedError(f"a function worker asked for {call.what[:40]!r}")

    async def _begin_effect(self, data: Any) -> bytes:
        effect = await self._context.effect(str(data["action"]), data["arguments"], data.get("context"))
        outcome = await effect.begin()
        request = effect.request
        if outcome is None:
            self._effects[request.id] = effect
        arguments = request.modified_arguments if request.modified_arguments is not None else request.arguments
        return msgspec.json.encode({"done": outcome is not None, "outcome": outcome, "approval": request.id, "arguments": arguments})

    def _failure(self, message: Failed, job: RunningJob) -> Exception:
        if message.kind == "ended" and self._refused is not None:
            return self._refused
        if message.kind == "later":
            return ContinueLaterError(message.message)
        if message.kind == "cancelled" and job.ending == "timeout":
            return ExecutionFailedError(f"it took longer than {self._timeout:g} s", code="executor_timeout")
        if message.kind == "cancelled" and self._cancelled:
            return _cancelled()
        diagnostics = {"traceback": message.trace} if message.trace else {}
        return ExecutionFailedError(message.message, code=message.code, retryable=message.kind != "refused", diagnostics=diagnostics)


def _judge(lost: WorkerLostError) -> None:
    """Raise what a lost worker means for the task; return when it may go on elsewhere."""
    if lost.code == "unavailable":
        raise ApplianceError("unavailable", "the box stops", hint="the task goes on when it is up again") from lost
    if lost.code == "cancelled":
        raise _cancelled() from lost
    if lost.guilty:
        raise ExecutionFailedError(str(lost), code=lost.code, diagnostics={"notes": lost.notes} if lost.notes else {}) from lost


def _cancelled() -> ExecutionFailedError:
    return ExecutionFailedError("it was stopped", code="cancelled", retryable=False)


def _checked_step(name: str, body: bytes) -> msgspec.Raw:
    if not 0 < len(name) <= _MOST_STEP_NAME:
        raise ExecutionFailedError("a function worker named a step in a way that is not allowed", code="result_invalid")
    return _checked(body)


def _checked(body: bytes) -> msgspec.Raw:
    """JSON of a worker, which goes into the log as it is: it must be JSON."""
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ExecutionFailedError("a function worker sent something that is not JSON", code="result_invalid") from error
    return msgspec.Raw(body)
