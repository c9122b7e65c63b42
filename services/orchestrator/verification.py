"""Inputs and results against the schemas that were declared for them: the task's output schema, the executor's input and output schemas.

Checks run in threads: one may take up to a second (``schema_check`` bounds it), and the loop never waits on a CPU.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import ExecutorCapabilities, TaskSpec
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.projection import Projection
from services.orchestrator.scheduling.schema_check import SchemaChecker, encoded

BY_TYPE: Final = "byTaskType"


class Verification:
    """See the module."""

    def __init__(self, projection: Projection, checker: SchemaChecker) -> None:
        self._projection = projection
        self._checker = checker

    async def spec(self, spec: TaskSpec) -> None:
        """Raise ``task_invalid`` when the output schema cannot be used, or when no executor that takes the type takes this input."""
        if spec.output_schema is not None:
            await asyncio.to_thread(self._checker.check_schema, bytes(spec.output_schema))
        refusal: ApplianceError | None = None
        for executor in self._projection.executors.values():
            if executor.gone or not _takes(executor.capabilities, spec):
                continue
            schema = schema_for(executor.capabilities.input_schema, spec.type)
            if schema is None:
                return
            try:
                await asyncio.to_thread(self._checker.check_input, encoded(schema), bytes(spec.input_data))
                return
            except ApplianceError as error:
                refusal = error
        if refusal is not None:
            raise refusal

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


def _takes(capabilities: ExecutorCapabilities, spec: TaskSpec) -> bool:
    return spec.type in capabilities.supported_task_types or "*" in capabilities.supported_task_types
