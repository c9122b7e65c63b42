"""The ``specialized_ml`` executor: tasks for models that are no chat models, each as input transformer → model → output transformer.

Owns: the chain and its limits in time and number. A new model is a :class:`Chain` in ``bootstrap``, nothing else. The first is the code analyser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorType, Task
from appliance.kit.errors import ApplianceError
from services.orchestrator.executors.builtin_functions import CODE_FEATURES, CODE_SECONDS
from services.orchestrator.executors.code_analysis.features import MOST_CHARACTERS
from services.orchestrator.executors.code_analysis.rules import SEVERITIES, Features, Finding, Thresholds, judge, report
from services.orchestrator.executors.function_call import call_function
from services.orchestrator.executors.worker_group import WorkerGroup
from services.orchestrator.executors.worker_process import WorkerLostError
from services.orchestrator.ports import ExecutionFailedError, ExecutionResult, TaskContext

_Input = TypeVar("_Input")
_Output = TypeVar("_Output")
_MOST_FINDINGS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Chain(Generic[_Input, _Output]):
    """How one kind of task is done.

    Attributes:
        name: of the model, in the metrics.
        task_type: what it takes.
        input_transformer: the task's input → what the model reads. Raises ExecutionFailedError for what it cannot read.
        model: what it reads → what it says.
        output_transformer: what it says → the result, as JSON can have it.
        input_schema: of the task's input, for the registry.
    """

    name: str
    task_type: str
    input_transformer: Callable[[Any], Awaitable[_Input]]
    model: Callable[[_Input], Awaitable[_Output]]
    output_transformer: Callable[[_Output], Awaitable[Any]]
    input_schema: Mapping[str, Any] = field(default_factory=dict)


class SpecializedExecutor:
    """Satisfies ``ExecutorAdapter``.

    Args:
        chains: one per task type.
        max_load: tasks at once.
        healthy: raises ApplianceError when nothing can be done now.
    """

    kind: Final = ExecutorType.SPECIALIZED_ML

    def __init__(self, chains: tuple[Chain[Any, Any], ...], max_load: int, healthy: Callable[[], Awaitable[str]]) -> None:
        self._chains = {chain.task_type: chain for chain in chains}
        self._healthy = healthy
        self._running: dict[str, asyncio.Task[ExecutionResult]] = {}
        self.max_load: Final = max_load

    def capabilities(self) -> ExecutorCapabilities:
        """Task types of the chains."""
        schemas = {chain.task_type: dict(chain.input_schema) for chain in self._chains.values() if chain.input_schema}
        return ExecutorCapabilities(supported_task_types=tuple(sorted(self._chains)), input_schema={"byTaskType": schemas} if schemas else {})

    async def status(self) -> str:
        """See ``ExecutorAdapter``."""
        return f"{len(self._chains)} models, {len(self._running)} of {self.max_load} tasks; {await self._healthy()}"

    async def cancel(self, task_id: str) -> None:
        """Stop working on it."""
        running = self._running.get(task_id)
        if running is not None:
            running.cancel()

    async def execute(self, task: Task, context: TaskContext) -> ExecutionResult:
        """Input transformer, model, output transformer. See ``ExecutorAdapter``."""
        del context  # short work without steps: an attempt that is lost is done again
        chain = self._chains.get(task.type)
        if chain is None:
            raise ExecutionFailedError(f"there is no model for {task.type!r}", code="task_invalid", retryable=False)
        work = self._running[task.id] = asyncio.create_task(_through(chain, task))
        try:
            return await work
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is not None and mine.cancelling():
                raise
            raise ExecutionFailedError("it was stopped", code="cancelled", retryable=False) from None
        except WorkerLostError as lost:
            raise ApplianceError("unavailable", "the box stops", hint="the task goes on when it is up again") from lost
        finally:
            work.cancel()
            if self._running.get(task.id) is work:
                del self._running[task.id]


async def _through(chain: Chain[Any, Any], task: Task) -> ExecutionResult:
    read = await chain.input_transformer(msgspec.json.decode(task.input_data))
    result = await chain.output_transformer(await chain.model(read))
    return ExecutionResult(msgspec.Raw(msgspec.json.encode(result)), {"model": chain.name})


class CodeRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Input of a ``code_analysis`` task. ``least_severity`` and ``most_findings`` bound the result."""

    source: str
    least_severity: str = "note"
    most_findings: int = 200
    thresholds: Thresholds = Thresholds()


def code_analyser(group: WorkerGroup) -> Chain[tuple[CodeRequest, Features], tuple[CodeRequest, Features, list[Finding]]]:
    """Python source → features of its syntax tree (in a sandboxed worker) → findings by rules → report."""

    async def read(data: Any) -> tuple[CodeRequest, Features]:
        request = _request(data)
        found = await call_function(group, CODE_FEATURES, {"source": request.source}, CODE_SECONDS)
        try:
            return request, msgspec.json.decode(found, type=Features)
        except msgspec.MsgspecError as error:
            raise ExecutionFailedError("the worker's features make no sense", code="result_invalid") from error

    async def findings(read: tuple[CodeRequest, Features]) -> tuple[CodeRequest, Features, list[Finding]]:
        return *read, judge(read[1], read[0].thresholds)

    async def written(said: tuple[CodeRequest, Features, list[Finding]]) -> dict[str, Any]:
        request, features, found = said
        return report(found, features, request.most_findings, request.least_severity)

    schema = {"type": "object", "required": ["source"], "properties": {"source": {"type": "string", "maxLength": MOST_CHARACTERS}}}
    return Chain("python-ast-1", "code_analysis", read, findings, written, schema)


def _request(data: Any) -> CodeRequest:
    try:
        request = msgspec.convert(data, CodeRequest)
    except msgspec.ValidationError as error:
        raise ExecutionFailedError(f"the input is not that of code_analysis: {error}", code="task_invalid", retryable=False) from error
    if len(request.source) > MOST_CHARACTERS:
        message = f"the source has {len(request.source):,} characters, {MOST_CHARACTERS:,} are allowed"
        raise ExecutionFailedError(message, code="too_large", retryable=False)
    if request.least_severity not in SEVERITIES or not 1 <= request.most_findings <= _MOST_FINDINGS:
        message = f"leastSeverity is one of {', '.join(SEVERITIES)}; mostFindings is 1 to {_MOST_FINDINGS}"
        raise ExecutionFailedError(message, code="task_invalid", retryable=False)
    return request
