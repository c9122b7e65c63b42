"""The registry of executors (``Executors`` of the contract)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import Executor, ExecutorCapabilities, ExecutorStatus, ExecutorType, PerformanceMetrics
from appliance.identity.permissions import Aspect, Resource, Verb, may, require
from appliance.identity.principal import Principal
from appliance.identity.task_rights import claimable_spaces, may_register
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.domain.events import ExecutorRegistered, ExecutorStatusChanged, ExecutorUnregistered
from services.orchestrator.domain.registry import ExecutorState, owned_since
from services.orchestrator.guardian import Guardian
from services.orchestrator.performance import Performance
from services.orchestrator.ports import Leases
from services.orchestrator.replica import Replica
from services.orchestrator.views import executor_view

MOST_EXECUTORS: Final = 10_000
MOST_OWNED: Final = 1_000
MOST_TYPES: Final = 500
MOST_SPACES_NAMED: Final = 500
MOST_LOAD: Final = 10_000
MOST_CAPABILITY_BYTES: Final = 65_536
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}")
_SETTABLE: Final = frozenset({ExecutorStatus.ONLINE, ExecutorStatus.DRAINING, ExecutorStatus.DISABLED})


class ExecutorDesk:
    """See the module."""

    def __init__(self, replica: Replica, leases: Leases, guardian: Guardian, performance: Performance, lease_seconds: float) -> None:
        self._replica = replica
        self._projection = replica.projection
        self._leases = leases
        self._guardian = guardian
        self._performance = performance
        self._lease_seconds = lease_seconds

    async def register(
        self, principal: Principal, executor_id: str, executor_type: ExecutorType, capabilities: ExecutorCapabilities, *, name: str = "",
        version: str = "", endpoint: str = "", max_load: int = 1,
    ) -> Executor:  # fmt: skip
        """See the contract."""
        if not may_register(principal, executor_type):
            raise ApplianceError("forbidden", f"{principal.subject} may not register executors of type {executor_type}", hint="use an agent's key")
        self._check(executor_id, capabilities, name, version, endpoint, max_load)
        if executor_id not in self._projection.executors:
            self._check_room(principal)

        def decide(known: ExecutorState | None) -> tuple[ExecutorRegistered | ExecutorStatusChanged, ...]:
            if known is not None and not known.gone and known.owner != principal.subject and not principal.is_admin:
                raise ApplianceError("conflict", "another principal's executor has this id", hint="choose another id")
            incarnation = known.incarnation + 1 if known is not None else 1
            registered = ExecutorRegistered(
                type=executor_type, capabilities=capabilities, executor_name=name or executor_id, version=version, endpoint=endpoint,
                max_load=max_load, owner=principal.subject, incarnation=incarnation,
                owned_since=owned_since(known, principal.subject, incarnation), spaces=offered_spaces(principal),
            )  # fmt: skip
            return (registered, *kept_status(known))

        state = await self._replica.change_executor(executor_id, decide, by=principal.subject)
        await self._leases.renew(executor_id, state.incarnation, self._replica.now() + self._lease_seconds)
        return self._view(state)

    async def heartbeat(self, principal: Principal, executor_id: str) -> Executor:
        """See the contract. One that was taken for lost is online again; what it held is gone."""
        state = await self._own(principal, executor_id)
        until = self._replica.now() + self._lease_seconds
        await self._leases.renew(executor_id, state.incarnation, until)
        self._guardian.signs.hear(executor_id, state.incarnation, until)
        if state.status is ExecutorStatus.LOST:
            online = ExecutorStatusChanged(status=ExecutorStatus.ONLINE, by=principal.subject)
            state = await self._replica.change_executor(
                executor_id, lambda known: (online,) if known is not None and known.status is ExecutorStatus.LOST else (), by=principal.subject
            )
        return self._view(state)

    async def unregister(self, principal: Principal, executor_id: str) -> None:
        """See the contract."""
        await self._own(principal, executor_id)
        gone = ExecutorUnregistered()
        await self._replica.change_executor(executor_id, lambda known: (gone,) if known is not None and not known.gone else (), by=principal.subject)

    async def list(self, principal: Principal) -> Sequence[Executor]:
        """See the contract: those that the caller may read."""
        return [self._view(state) for state in self._projection.executors.values() if not state.gone and self._may_read(principal, state)]

    async def set_status(self, principal: Principal, executor_id: str, status: ExecutorStatus) -> Executor:
        """See the contract."""
        state = self._projection.executors.get(executor_id)
        if state is None or state.gone or not self._may_read(principal, state):
            raise not_found("executor")
        require(principal, Verb.UPDATE, Resource.EXECUTOR, own=state.owner == principal.subject, aspect=Aspect.STATUS, what="executor")
        if status not in _SETTABLE:
            raise ApplianceError("invalid_request", "a status is online, draining or disabled")
        changed = ExecutorStatusChanged(status=status, by=principal.subject)
        state = await self._replica.change_executor(
            executor_id, lambda known: (changed,) if known is not None and known.status is not status else (), by=principal.subject
        )
        return self._view(state)

    async def _own(self, principal: Principal, executor_id: str) -> ExecutorState:
        state = self._projection.executors.get(executor_id)
        if state is None or state.gone:  # it may have registered with another replica just now
            await self._replica.sync()
            state = self._projection.executors.get(executor_id)
        if state is None or state.gone or not (principal.is_admin or state.owner == principal.subject):
            raise not_found("executor")
        return state

    @staticmethod
    def _may_read(principal: Principal, state: ExecutorState) -> bool:
        return may(principal, Verb.READ, Resource.EXECUTOR, own=state.owner == principal.subject)

    def _view(self, state: ExecutorState) -> Executor:
        load = len(self._projection.held.get(state.id, ()))
        metrics: PerformanceMetrics = self._performance.of(state.id)
        return executor_view(state, load, metrics, max(state.seen_at, self._guardian.signs.said_until(state.id) - self._lease_seconds))

    def _check_room(self, principal: Principal) -> None:
        """Nobody fills the registry alone: ids that were left count too, they are remembered."""
        executors = self._projection.executors
        if len(executors) >= MOST_EXECUTORS:
            raise ApplianceError("overloaded", f"there are {MOST_EXECUTORS} executors already", hint="register under an id that is known")
        if not principal.is_admin and sum(state.owner == principal.subject for state in executors.values()) >= MOST_OWNED:
            raise ApplianceError("overloaded", f"a principal has at most {MOST_OWNED} executors", hint="register under an id that you had before")

    @staticmethod
    def _check(executor_id: str, capabilities: ExecutorCapabilities, name: str, version: str, endpoint: str, max_load: int) -> None:
        if _ID.fullmatch(executor_id) is None or not 1 <= max_load <= MOST_LOAD:
            raise ApplianceError("invalid_request", f"an executor's id has 1 to 100 of A-Z a-z 0-9 . _ : @ -; its load is 1 to {MOST_LOAD}")
        if max(len(name), len(version), len(endpoint)) > 500:
            raise ApplianceError("invalid_request", "name, version and endpoint have at most 500 characters")
        check_capabilities(capabilities)


def check_capabilities(capabilities: ExecutorCapabilities) -> None:
    """Raise ``invalid_request`` or ``too_large`` unless they may be kept; whoever changes them asks, not only who registers."""
    if len(capabilities.supported_task_types) > MOST_TYPES:
        raise ApplianceError("invalid_request", f"there are at most {MOST_TYPES} task types", hint="use * for every type")
    if len(msgspec.json.encode(capabilities)) > MOST_CAPABILITY_BYTES:
        raise ApplianceError("too_large", f"capabilities have at most {MOST_CAPABILITY_BYTES} bytes", hint="shorten the schemas")


def offered_spaces(principal: Principal) -> tuple[str, ...] | None:
    """Spaces whose tasks the caller's executors are offered; None = all, or too many to name."""
    spaces = claimable_spaces(principal)
    return None if principal.is_admin or len(spaces) > MOST_SPACES_NAMED else tuple(sorted(spaces))


def kept_status(known: ExecutorState | None) -> tuple[ExecutorStatusChanged, ...]:
    """What an operator said stands beyond a new registration: disabled, draining."""
    if known is None or known.status not in {ExecutorStatus.DISABLED, ExecutorStatus.DRAINING}:
        return ()
    return (ExecutorStatusChanged(status=known.status, by="kept"),)
