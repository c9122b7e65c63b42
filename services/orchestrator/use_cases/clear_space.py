"""A space goes: its open tasks are cancelled, all its tasks dropped, its schedules, rules and grants removed. Owns the order.

Whoever gets a space of the same name later finds nothing of it: no task to read, no grant that still allows something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import PolicyChanged, ScheduleChanged
from services.orchestrator.domain.registry import SpaceState
from services.orchestrator.ports import EventLog
from services.orchestrator.replica import Replica
from services.orchestrator.subjects import TASKS, subject_names, subject_token

BY: Final = "system:spaces"
_PASSED_OVER: Final = frozenset({"task_state", "not_found"})
_BREATH_EVERY: Final = 200


class SpaceClearing:
    """See the module.

    Args:
        replica: takes the commands.
        log: has the tasks that left memory.
        keep_terminal: ended tasks that stay in memory at most.
    """

    def __init__(self, replica: Replica, log: EventLog, keep_terminal: int) -> None:
        self._replica = replica
        self._event_log = log
        self._keep_terminal = keep_terminal

    async def clear(self, space: str) -> int:
        """How many tasks it had; safe to repeat. Entries leave the disk with the next rounds of retention.

        Raises:
            ApplianceError: ``unavailable``, ``overloaded``, ``disk_full``: repeat it.
        """
        await self._replica.change_space(space, _emptied, by=BY)  # first: a schedule would make new ones
        tasks = await self._tasks(space)
        for command in (cm.Cancel(reason="its space was removed"), cm.Drop()):
            for number, task_id in enumerate(tasks, 1):
                await self._try(task_id, command)
                if not number % _BREATH_EVERY:
                    await asyncio.sleep(0)
        return len(tasks)

    async def _tasks(self, space: str) -> Sequence[str]:
        found = {state.id: None for state in self._replica.projection.tasks.values() if state.space == space}
        if len(self._replica.projection.tasks) >= self._keep_terminal:
            for recorded in await self._event_log.read(f"{TASKS}.{subject_token(space)}.*"):
                found[subject_names(recorded.subject)[-1]] = None
        return tuple(found)

    async def _try(self, task_id: str, command: cm.Command) -> None:
        state = await self._replica.state(task_id)
        if state is None or state.dropped or (isinstance(command, cm.Cancel) and state.is_terminal):
            return
        try:
            await self._replica.execute(task_id, None, command, by=BY)
        except ApplianceError as error:
            if error.code not in _PASSED_OVER:
                raise


def _emptied(space: SpaceState) -> Sequence[ScheduleChanged | PolicyChanged]:
    return (
        *(ScheduleChanged(schedule=name) for name in space.schedules),
        *(PolicyChanged(action=action, mode=None) for action in space.policies),
        *(PolicyChanged(action=action, mode=None, source="grant") for action in space.grants),
    )
