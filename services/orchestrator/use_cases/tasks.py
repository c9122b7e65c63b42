"""Tasks for whoever wants something done, and for those who steer it (``Tasks`` and ``TaskControl`` of the contract)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.values import Task, TaskEvent, TaskSpec
from appliance.identity.permissions import Aspect, Resource, Verb
from appliance.identity.principal import Principal
from appliance.identity.task_rights import reach
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.events import TaskCreated
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.domain.upcasting import decode_envelope
from services.orchestrator.identifiers import TASK, new_id
from services.orchestrator.replica import Replica
from services.orchestrator.rights import Rights
from services.orchestrator.task_checkpoints import TaskCheckpoints
from services.orchestrator.use_cases.submit_tasks import SubmitTasks
from services.orchestrator.views import event_views, task_view
from services.orchestrator.waiting import Waiting

MOST_LISTED: Final = 500
MOST_IN_GRAPH: Final = 1_000
MOST_WAIT_SECONDS: Final = 300.0
MOST_REOPENED: Final = 1_000
BREATH_EVERY: Final = 5_000


class TaskDesk:
    """See the module."""

    def __init__(self, replica: Replica, rights: Rights, submitting: SubmitTasks, checkpoints: TaskCheckpoints, waiting: Waiting) -> None:
        self._replica = replica
        self._projection = replica.projection
        self._rights = rights
        self._submitting = submitting
        self._checkpoints = checkpoints
        self._waiting = waiting

    async def submit(self, principal: Principal, specs: Sequence[TaskSpec]) -> Sequence[Task]:
        """See the contract."""
        return await self._submitting.submit(principal, specs)

    async def get(self, principal: Principal, task_id: str) -> Task:
        """See the contract."""
        state = await self._readable(principal, task_id)
        return self._view(principal, state)

    async def list(self, principal: Principal, where: TaskFilter) -> Sequence[Task]:
        """See the contract. Ended tasks that have left memory are not listed; they are found by id."""
        found: list[Task] = []
        skipping = where.before is not None
        within = reach(principal, Resource.TASK)
        for number, task_id in enumerate(reversed(list(self._projection.tasks)), 1):
            if not number % BREATH_EVERY:
                await asyncio.sleep(0)
            if skipping:
                skipping = task_id != where.before
                continue
            state = self._projection.tasks.get(task_id)
            if state is None or not _matches(state, where) or not (within.everything or within.own or state.space in within.spaces):
                continue
            if within.everything or self._rights.may_read(principal, state):
                found.append(task_view(state, self._projection))
                if len(found) >= min(max(where.limit, 1), MOST_LISTED):
                    break
        return found

    async def history(self, principal: Principal, task_id: str) -> Sequence[TaskEvent]:
        """See the contract."""
        state = await self._readable(principal, task_id)
        events: list[TaskEvent] = []
        for entry in await self._replica.history(state):
            events += event_views(task_id, state.space, decode_envelope(entry.body), entry.sequence)
        return events

    async def graph(self, principal: Principal, task_id: str) -> Sequence[Task]:
        """See the contract; breadth first from the task."""
        await self._readable(principal, task_id)
        found: dict[str, TaskState] = {}
        ahead = [task_id]
        for current in ahead:
            state = self._projection.tasks.get(current) or await self._replica.state(current)
            if current in found or state is None or not self._rights.may_read(principal, state):
                continue
            found[current] = state
            if len(found) >= MOST_IN_GRAPH:
                break
            ahead += [*state.dependencies, *self._projection.dependents.get(current, ()), *self._projection.children.get(current, ())]
            ahead += [state.parent] if state.parent is not None else []
        return [task_view(state, self._projection) for state in found.values()]

    async def wait(self, principal: Principal, task_id: str, timeout_seconds: float) -> Task:
        """See the contract."""
        state = await self._readable(principal, task_id)
        if not state.is_terminal and timeout_seconds > 0:
            await self._waiting.for_key(task_id, min(timeout_seconds, MOST_WAIT_SECONDS))
        return await self.get(principal, task_id)

    async def cancel(self, principal: Principal, task_id: str, reason: str = "") -> Task:
        """See the contract. Children that were delegated end with it."""
        state = await self._steer(principal, task_id, Aspect.STATUS, cm.Cancel(reason=_short(reason)))
        ahead = list(self._projection.children.get(task_id, ()))
        for child in ahead:
            known = self._projection.tasks.get(child)
            if known is not None and not known.is_terminal:
                await self._replica.execute(child, None, cm.Cancel(reason=f"its ancestor {task_id} was cancelled"), by=principal.subject)
            ahead += self._projection.children.get(child, ())
        return self._view(principal, state)

    async def pause(self, principal: Principal, task_id: str) -> Task:
        """See the contract."""
        return self._view(principal, await self._steer(principal, task_id, Aspect.STATUS, cm.Pause()))

    async def resume(self, principal: Principal, task_id: str) -> Task:
        """See the contract."""
        return self._view(principal, await self._steer(principal, task_id, Aspect.STATUS, cm.Resume()))

    async def retry(self, principal: Principal, task_id: str) -> Task:
        """See the contract."""
        state = await self._steer(principal, task_id, Aspect.STATUS, cm.Reopen(reason="retried by an operator"))
        ahead = [task_id]
        for current in ahead[:MOST_REOPENED]:
            for dependent in list(self._projection.dependents.get(current, ())):
                known = self._projection.tasks.get(dependent)
                if known is not None and known.error is not None and known.error.code == "dependency_failed":
                    await self._replica.execute(dependent, None, cm.Reopen(reason=f"{task_id} was retried"), by=principal.subject)
                    ahead.append(dependent)
        return self._view(principal, state)

    async def fork(self, principal: Principal, task_id: str, checkpoint_id: str | None = None, input_data: msgspec.Raw | None = None) -> Task:
        """See the contract."""
        state = await self._readable(principal, task_id)
        self._rights.require_in_space(principal, Verb.CREATE, Resource.TASK, state.space)
        self._submitting.check_room([(state.space, state.type)])
        if input_data is not None and not isinstance(_json(input_data), dict):
            raise ApplianceError("task_invalid", "inputData is an object")
        target = new_id(TASK)
        created = self._forked(state, principal.account, input_data, with_steps=checkpoint_id is None)
        if checkpoint_id is not None:
            created = msgspec.structs.replace(created, checkpoint=await self._checkpoints.copy(state, checkpoint_id, target))
        forked = await self._replica.execute(target, state.space, cm.Create(created=created), by=principal.subject)
        return self._view(principal, forked)

    async def set_priority(self, principal: Principal, task_id: str, priority: int) -> Task:
        """See the contract."""
        return self._view(principal, await self._steer(principal, task_id, Aspect.PRIORITY, cm.SetPriority(priority=priority)))

    def _forked(self, state: TaskState, owner: str, input_data: msgspec.Raw | None, *, with_steps: bool) -> TaskCreated:
        return TaskCreated(
            type=state.type, space=state.space, owner=owner, description=state.description, input_data=input_data or state.input_data,
            priority=state.priority, executor_type=state.executor_type, output_schema=state.output_schema, retry=state.retry,
            timeout_seconds=state.timeout_seconds, metadata=state.metadata, forked_from=state.id,
            steps=state.steps if with_steps and input_data is None else {},
        )  # fmt: skip

    async def _readable(self, principal: Principal, task_id: str) -> TaskState:
        return self._rights.require(principal, Verb.READ, await self._replica.state(task_id))

    async def _steer(self, principal: Principal, task_id: str, aspect: Aspect, command: cm.Command) -> TaskState:
        self._rights.require(principal, Verb.UPDATE, await self._replica.state(task_id), aspect=aspect)
        return await self._replica.execute(task_id, None, command, by=principal.subject)

    def _view(self, principal: Principal, state: TaskState) -> Task:
        return task_view(state, self._projection, with_token=self._rights.claimant(state, state.executor) == principal.subject)


def _matches(state: TaskState, where: TaskFilter) -> bool:
    return (
        (where.space is None or state.space == where.space)
        and (where.status is None or state.status is where.status)
        and (where.type is None or state.type == where.type)
        and (where.executor is None or state.executor == where.executor)
        and (where.parent is None or state.parent == where.parent)
    )


def _short(text: str) -> str:
    return text[:2000]


def _json(raw: msgspec.Raw) -> object:
    try:
        value: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ApplianceError("malformed_json", "inputData is not JSON") from exc
    return value
