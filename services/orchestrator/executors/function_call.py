"""Call a registered function in a worker of its own without a task: what the box itself does with data that it does not trust."""

from __future__ import annotations

import msgspec

from services.orchestrator.executors.frames import Done, Failed, Start
from services.orchestrator.executors.worker_group import WorkerGroup
from services.orchestrator.executors.worker_process import RunningJob, WorkerLostError
from services.orchestrator.ports import ExecutionFailedError


async def call_function(group: WorkerGroup, function: str, data: object, timeout_seconds: float) -> bytes:
    """JSON of what ``function`` returns for ``data``. Its steps and progress go nowhere.

    Raises:
        ExecutionFailedError: it failed; a worker that died or took too long is not ``retryable``: the data did that, and would do it again.
        ApplianceError: ``unavailable``.
    """
    async with group.solo() as worker:
        start = Start(0, "", function, msgspec.json.encode(data), b"{}", 1, {})
        return await _ended(worker.begin(start, timeout_seconds), timeout_seconds)


async def _ended(job: RunningJob, timeout_seconds: float) -> bytes:
    while True:
        try:
            message = await job.next()
        except WorkerLostError as lost:
            if lost.code == "unavailable":
                raise
            said = f"it took longer than {timeout_seconds:g} s" if lost.code == "executor_timeout" else str(lost)
            raise ExecutionFailedError(said, code=lost.code, retryable=False, diagnostics={"notes": lost.notes}) from lost
        if type(message) is Done:
            return bytes(message.result)
        if type(message) is Failed:
            raise ExecutionFailedError(
                message.message, code=message.code, retryable=message.kind != "refused", diagnostics={"traceback": message.trace}
            )
