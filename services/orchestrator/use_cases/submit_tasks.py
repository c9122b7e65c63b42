"""Making tasks: limits, rights, schemas, one atomic append; a task that can start at once is assigned in the entry that makes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from appliance.contracts.orchestrator.v1.values import Task, TaskSpec
from appliance.identity.permissions import Resource, Verb
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.local_executors import LocalExecutor, LocalExecutors
from services.orchestrator.replica import Replica
from services.orchestrator.rights import Rights
from services.orchestrator.scheduling.admission import AdmissionLimits, BoxLoad, check_room
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.submission import Planned, plan
from services.orchestrator.views import task_view

SMALL: Final = 32
CheckSpec = Callable[[TaskSpec], Awaitable[None]]


class SubmitTasks:
    """See the module.

    Args:
        replica: takes the commands.
        rights: who may.
        local: executors that could begin at once.
        settings: limits.
        check_spec: raises ``task_invalid`` for schemas that cannot be used and inputs that nobody takes.
    """

    def __init__(self, replica: Replica, rights: Rights, local: LocalExecutors, settings: OrchestratorSettings, check_spec: CheckSpec) -> None:
        self._replica = replica
        self._rights = rights
        self._local = local
        self._settings = settings
        self._check_spec = check_spec
        self._large = asyncio.Semaphore(2)
        self._limits = AdmissionLimits(
            open_tasks=settings.max_open_tasks, open_tasks_per_space=settings.max_open_tasks_per_space,
            open_types_per_space=settings.max_open_types_per_space,
        )  # fmt: skip

    async def submit(self, principal: Principal, specs: Sequence[TaskSpec]) -> Sequence[Task]:
        """See ``contracts.orchestrator.v1.api.Tasks.submit``; answers in the order of ``specs``."""
        if not specs or len(specs) > self._settings.max_tasks_per_submission:
            most = self._settings.max_tasks_per_submission
            raise ApplianceError("task_invalid", f"a submission has 1 to {most} tasks", hint="submit the rest afterwards")
        for space in {spec.space for spec in specs}:
            if space not in principal.spaces:  # also an administrator's: every space that exists is named there
                raise not_found("space")
            self._rights.require_in_space(principal, Verb.CREATE, Resource.TASK, space)
        if len(specs) <= SMALL:
            return await self.make(principal, specs, principal.account, by=principal.subject)
        async with self._large:  # one after the other: a flood of large submissions leaves room for everybody else
            return await self.make(principal, specs, principal.account, by=principal.subject)

    async def make(self, principal: Principal, specs: Sequence[TaskSpec], owner: str, *, by: str, parent: str | None = None) -> Sequence[Task]:
        """The same after the rights were checked; ``parent`` for a delegated task."""
        self.check_room([(spec.space, spec.type) for spec in specs])
        for spec in specs:
            await self._check_spec(spec)
        planned = plan(specs, owner, self._settings.max_input_bytes, self._replica.now(), parent)
        await self._check_outside(principal, planned)
        states = await self._make_all(planned, by)
        by_id = {state.id: state for state in states}
        return [task_view(by_id[one.id], self._replica.projection) for one in sorted(planned, key=lambda one: one.at)]

    async def _make_all(self, planned: Sequence[Planned], by: str) -> Sequence[TaskState]:
        reserved: list[LocalExecutor] = []
        pairs: list[tuple[str, str, tuple[cm.Command, ...]]] = []
        try:
            for one in planned:
                commands: tuple[cm.Command, ...] = (cm.Create(created=one.created),)
                executor = None if one.created.dependencies or one.id in self._replica.projection.tasks else self._eager(one)
                if executor is not None:
                    reserved.append(executor)
                    executor.claiming += 1
                    commands = (*commands, self._local.assignment(executor))
                pairs.append((one.id, one.created.space, commands))
            if len(pairs) == 1:
                task_id, space, commands = pairs[0]
                return [await self._replica.execute(task_id, space, *commands, by=by)]
            return await self._replica.execute_all(pairs, by=by)
        finally:
            for executor in reserved:
                executor.claiming -= 1

    def _eager(self, one: Planned) -> LocalExecutor | None:
        return self._local.eager(one.created.type, one.created.executor_type)

    def check_room(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Backpressure for new tasks of (space, type): refuse, rather than let the log and memory grow without end."""
        projection = self._replica.projection
        types = {space: len(known) for space, known in projection.open_types.items()}
        load = BoxLoad(projection.open_count, projection.open_by_space, types)
        fresh = {(space, type_) for space, type_ in wanted if type_ not in projection.open_types.get(space, ())}
        check_room(Counter(space for space, _ in wanted), load, self._limits, Counter(space for space, _ in fresh))

    async def _check_outside(self, principal: Principal, planned: Sequence[Planned]) -> None:
        for dependency in dict.fromkeys(one for task in planned for one in task.outside):
            state = await self._replica.state(dependency) if dependency.startswith("t_") and len(dependency) < 64 else None
            if state is None or not self._rights.may_read(principal, state):
                raise ApplianceError(
                    "task_invalid", f"there is no task {dependency[:80]!r} to depend on", hint="use ids of tasks, or keys of this submission"
                )
            if state.is_terminal and dependency not in self._replica.projection.tasks:
                self._replica.projection.put_task(None, state)
