"""Inputs and results against the schemas that were declared for them: the task's output schema, the executor's input and output schemas.

Checks run in threads: one may take up to a second (``schema_check`` bounds it), and the loop never waits on a CPU.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, ExecutorStatus, TaskSpec
from appliance.kit.errors import ApplianceError
from appliance.schema.schema_check import SchemaChecker, encoded
from services.orchestrator.domain.registry import ExecutorState
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.projection import Projection

BY_TYPE: Final = "byTaskType"
MOST_TRIED: Final = 16
"""Executors whose schemas are tried before a task is let through: each try may take a second of a thread."""


class Verification:
    """See the module."""

    def __init__(self, projection: Projection, checker: SchemaChecker) -> None:
        self._projection = projection
        self._checker = checker
        self._types: dict[str, tuple[ExecutorCapabilities, frozenset[str]]] = {}

    async def spec(self, spec: TaskSpec) -> None:
        """Raise ``task_invalid`` when the output schema cannot be used, or when no executor that takes the type takes this input.

        An executor that is not offered tasks of the space has no say in it, nor has one that is not at work.
        """
        if spec.output_schema is not None:
            await asyncio.to_thread(self._checker.check_schema, bytes(spec.output_schema))
        refusal: ApplianceError | None = None
        tried = 0
        for executor in self._projection.executors.values():
            if executor.gone or not executor.may_take_from(spec.space) or not self._takes(executor, spec.type):
                continue
            schema = schema_for(executor.capabilities.input_schema, spec.type)
            if schema is None:
                return
            try:
                await asyncio.to_thread(self._checker.check_input, encoded(schema), bytes(spec.input_data))
                return
            except ApplianceError as error:
                refusal = error if executor.status is ExecutorStatus.ONLINE else refusal
                tried += 1
                if tried >= MOST_TRIED:
                    return
        if refusal is not None:
            raise refusal

    def _takes(self, executor: ExecutorState, task_type: str) -> bool:
        """Looked up, not searched: there are thousands of executors with hundreds of types, and hundreds of specs ask at once."""
        known = self._types.get(executor.id)
        if known is None or known[0] is not executor.capabilities:
            known = self._types[executor.id] = (executor.capabilities, frozenset(executor.capabilities.supported_task_types))
        return task_type in known[1] or "*" in known[1]

    async def result(self, state: TaskState, result: msgspec.Raw) -> None:
        """Raise ``result_invalid`` when the result is not what the task, or its executor's own promise, says it is."""
        schemas = [] if state.output_schema is None else [bytes(state.output_schema)]
        executor = self._projection.executors.get(state.executor) if state.executor is not None else None
        promised = schema_for(executor.capabilities.output_schema, state.type) if executor is not None else None
        if promised is not None:
            schemas.append(encoded(promised))
        for schema in schemas:
            await asyncio.to_thread(self._checker.check_result, schema, bytes(result))


def schema_for(declared: dict[str, Any], task_type: str) -> dict[str, Any] | None:
    """The schema of a task type: capabilities name one for all types, or ``{"byTaskType": {type: schema}}``."""
    if not declared:
        return None
    if BY_TYPE not in declared:
        return declared
    found = declared[BY_TYPE].get(task_type) if isinstance(declared[BY_TYPE], dict) else None
    return found if isinstance(found, dict) and found else None
