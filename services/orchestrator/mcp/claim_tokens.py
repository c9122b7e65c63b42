"""Which fencing token a call means that carries none.

Tokens are remembered per (principal, task, executor) of claims made through this server. One claim: its token. Claims of several executors of the same
principal: the call must say which, or a late executor would report with the token of the one that came after it. Nothing remembered (the box was
started again, or another replica took the claim): a call that names its ``executorId`` gets the token that the task shows to its executor, if that
executor still has it; any other must bring its token.
"""

from __future__ import annotations

from collections import OrderedDict

from appliance.contracts.orchestrator.v1.api import Tasks
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError

_HINT = "pass the fencingToken that claim_task returned"
_MOST_EXECUTORS = 8


class ClaimTokens:
    """Remembers the newest ``capacity`` claims; tokens outlive the claim, so that a repeated report is answered as the first."""

    def __init__(self, tasks: Tasks, capacity: int) -> None:
        self._tasks = tasks
        self._capacity = capacity
        self._claims: OrderedDict[tuple[str, str], dict[str, int]] = OrderedDict()

    def remember(self, principal: Principal, task_id: str, executor_id: str, token: int) -> None:
        """After a claim."""
        key = (principal.subject, task_id)
        tokens = self._claims.pop(key, {})
        if executor_id in tokens or len(tokens) < _MOST_EXECUTORS:
            tokens[executor_id] = token
        self._claims[key] = tokens
        if len(self._claims) > self._capacity:
            self._claims.popitem(last=False)

    async def resolve(self, principal: Principal, task_id: str, given: int | None, executor_id: str | None) -> int:
        """The token of a call.

        Raises:
            ApplianceError: ``invalid_request`` when nobody can tell; ``stale_claim`` when ``executor_id`` does not have the task; ``not_found``.
        """
        if given is not None:
            return given
        remembered = self._claims.get((principal.subject, task_id), {})
        if executor_id is not None:
            return remembered.get(executor_id) or await self._shown(principal, task_id, executor_id)
        if len(remembered) == 1:
            return next(iter(remembered.values()))
        await self._tasks.get(principal, task_id)  # a foreign task stays not_found
        if remembered:
            raise ApplianceError("invalid_request", f"several of your executors have claimed {task_id}", hint=f"{_HINT}, or the executorId")
        raise ApplianceError("invalid_request", f"no claim of yours on {task_id} is known here", hint=f"{_HINT}, or the executorId of the claim")

    async def _shown(self, principal: Principal, task_id: str, executor_id: str) -> int:
        task = await self._tasks.get(principal, task_id)
        if task.assigned_executor == executor_id and task.fencing_token:
            return task.fencing_token
        raise ApplianceError(
            "stale_claim", f"{executor_id} does not have {task_id} (any more)", hint="stop working on it; call claim_task for another"
        )
