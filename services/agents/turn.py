"""Several calls of one turn: in the order of ``dependencies``, what is independent at the same time, each once.

Owns: waiting, filling references, calls that are equal. Does not own: what one call is (``toolbox``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from appliance.contracts.llm.v1.api import ToolCall
from appliance.contracts.tools.v1.api import ToolOutcome
from appliance.kit.errors import ApplianceError
from services.agents.dependencies import Step, filled, plan

Read = Callable[[str], dict[str, Any]]


class RunOne(Protocol):
    """Runs one call; ``arguments`` may be the error of reading them; ``is_clean``: no write of this turn came before."""

    def __call__(self, call: ToolCall, arguments: Any, *, is_clean: bool) -> Awaitable[ToolOutcome]: ...


async def run_turn(calls: Sequence[ToolCall], read: Read, writes: Callable[[str], bool], one: RunOne, at_once: int) -> list[ToolOutcome]:
    """One outcome per call, in their order. A cancelled turn cancels what runs."""
    given = [_read(read, call.arguments) for call in calls]
    steps = plan(calls, [None if isinstance(value, ApplianceError) else value for value in given], [writes(call.name) for call in calls])
    turn = _Running(calls, given, one, asyncio.Semaphore(at_once), writes)
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                turn.tasks.append(group.create_task(turn.step(step)))
    except BaseExceptionGroup as failures:  # a call has no exceptions of its own: this is a defect, told as such
        raise failures.exceptions[0] from failures
    return [task.result() for task in turn.tasks]


class _Running:
    def __init__(self, calls: Sequence[ToolCall], given: Sequence[Any], one: RunOne, slots: asyncio.Semaphore, writes: Callable[[str], bool]) -> None:
        self._calls = calls
        self._given = given
        self._one = one
        self._slots = slots
        self._writes = writes
        self._equal: dict[tuple[int, str, bytes], asyncio.Future[ToolOutcome]] = {}
        self._by_id: dict[str, int] = {}
        self.tasks: list[asyncio.Task[ToolOutcome]] = []

    async def step(self, step: Step) -> ToolOutcome:
        """Wait for what it needs, then run it or share the result of an equal call."""
        call = self._calls[step.index]
        for place in sorted(step.waits_for):
            await asyncio.wait({self.tasks[place]})
        first = next(index for index, other in enumerate(self._calls) if other.id == call.id) if call.id else step.index
        if first < step.index and self._writes(call.name):
            if self._calls[first] == call:
                return self.tasks[first].result()
            return ToolOutcome(call, f"error: the id {call.id[:100]!r} is taken by another call of this turn", "invalid_request")
        arguments = self._given[step.index]
        if step.needs and not isinstance(arguments, ApplianceError):
            contents = {place: self.tasks[place].result().content for place in step.waits_for if not self.tasks[place].result().code}
            try:
                arguments = filled(arguments, self._calls, contents)
            except ApplianceError as error:
                arguments = error
        if isinstance(arguments, ApplianceError) or self._writes(call.name):
            return await self._one(call, arguments, is_clean=step.epoch == 0)
        return await self._shared((step.epoch, call.name, msgspec.json.encode(arguments, order="sorted")), call, arguments, is_clean=step.epoch == 0)

    async def _shared(self, key: tuple[int, str, bytes], call: ToolCall, arguments: Any, *, is_clean: bool) -> ToolOutcome:
        standing = self._equal.get(key)
        if standing is not None:
            return replace(await asyncio.shield(standing), call=call)
        mine = self._equal[key] = asyncio.get_running_loop().create_future()
        try:
            async with self._slots:
                outcome = await self._one(call, arguments, is_clean=is_clean)
        except BaseException:
            mine.cancel()
            raise
        mine.set_result(outcome)
        return outcome


def _read(read: Read, text: str) -> Any:
    try:
        return read(text)
    except ApplianceError as error:
        return error
