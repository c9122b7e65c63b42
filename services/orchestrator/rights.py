"""Who may do what to a task, where the task is: SEC-2 (``appliance.identity.permissions``) asked with the facts of the projection.

A task that may not be seen is ``not_found``, exactly as one that does not exist.
"""

from __future__ import annotations

from appliance.identity.permissions import Aspect, Resource, Verb, may, require
from appliance.identity.principal import Principal
from appliance.identity.task_rights import is_agent, owns_task
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.domain.task_state import TaskState
from services.orchestrator.projection import Projection


class Rights:
    """Questions about the tasks of one projection."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    def owns(self, principal: Principal, verb: Verb, state: TaskState) -> bool:
        """Whether the task is the caller's own (see ``task_rights.owns_task``)."""
        return owns_task(principal, verb, submitter=state.owner, executor_owner=self.claimant(state, state.executor))

    def claimant(self, state: TaskState, executor_id: str | None) -> str | None:
        """Who registered the run of the executor that made the task's newest claim; None when that is not its owner of now."""
        executor = self._projection.executors.get(executor_id) if executor_id is not None else None
        return executor.owner_of(state.incarnation) if executor is not None else None

    def may_read(self, principal: Principal, state: TaskState) -> bool:
        """For lists and feeds."""
        return may(principal, Verb.READ, Resource.TASK, space=state.space, own=self.owns(principal, Verb.READ, state))

    def require(
        self, principal: Principal, verb: Verb, state: TaskState | None, resource: Resource = Resource.TASK, aspect: Aspect | None = None
    ) -> TaskState:
        """The task, when the caller may; raises ``not_found`` or ``forbidden``."""
        if state is None:
            raise not_found("task")
        own = self.owns(principal, verb, state)
        require(principal, verb, resource, space=state.space, own=own, aspect=aspect, what="task")
        return state

    def require_holder(self, principal: Principal, state: TaskState | None) -> TaskState:
        """The task, when the caller's executor has it or had it; raises ``not_found``, ``stale_claim``.

        An executor whose claim has ended may not see the task any more; it is told that its claim is stale, which says nothing about the task.
        """
        if state is None:
            raise not_found("task")
        if principal.is_admin or self.claimant(state, state.last_executor) == principal.subject:
            return state
        if is_agent(principal) and state.space in principal.spaces:
            raise ApplianceError("stale_claim", "this claim of the task has ended", hint="stop working on it and claim again")
        raise not_found("task")

    def require_in_space(self, principal: Principal, verb: Verb, resource: Resource, space: str, aspect: Aspect | None = None) -> None:
        """A right on a space's things; raises ``not_found`` (the space), ``forbidden``."""
        require(principal, verb, resource, space=space, aspect=aspect, what="space")
