"""Schedules for whoever makes them (``Schedules`` of the contract): rights, limits, listing. Firing is in ``schedule_firing``.

A schedule belongs to whoever put it (``Principal.account``) and makes tasks in that name. To put one, one must be allowed to make tasks in the space; to
change or delete another's, to change its tasks.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.identity.permissions import Resource, Verb, may, require
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from services.orchestrator.domain.events import ScheduleChanged
from services.orchestrator.domain.registry import ScheduleState, SpaceState
from services.orchestrator.replica import Replica
from services.orchestrator.schedule_firing import Firing
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.submission import plan
from services.orchestrator.triggers import ClockTrigger, EventTrigger, Trigger, parse_trigger, stored_trigger

MOST_SCHEDULES: Final = 200
MOST_SPEC_BYTES: Final = 32 * 1024
MOST_SPACE_BYTES: Final = 512 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class ScheduleDesk:
    """See the module.

    Args:
        replica: takes the changes.
        firing: knows when a schedule is due next.
        settings: limits of tasks.
        check_spec: raises ``task_invalid`` for what cannot be checked later (output schemas).
    """

    def __init__(
        self, replica: Replica, firing: Firing, settings: OrchestratorSettings, check_spec: Callable[[TaskSpec], Awaitable[None]] | None = None
    ) -> None:
        self._replica = replica
        self._firing = firing
        self._settings = settings
        self._check_spec = check_spec

    async def put(self, principal: Principal, name: str, trigger: dict[str, Any], spec: TaskSpec) -> dict[str, Any]:
        """See the contract.

        Raises:
            ApplianceError: ``not_found`` (the space), ``forbidden``, ``task_invalid``, ``too_large``.
        """
        if spec.space not in principal.spaces:  # also an administrator's: every space that exists is named there
            raise not_found("space")
        require(principal, Verb.CREATE, Resource.TASK, space=spec.space, what="space")
        if self._check_spec is not None:
            await self._check_spec(spec)
        changed = self._checked(name, trigger, spec, principal.account)

        def decide(space: SpaceState) -> Sequence[ScheduleChanged]:
            known = space.schedules.get(name)
            if known is not None:
                self._require_own(principal, space.space, known)
            if known is not None and (known.trigger, known.spec, known.owner) == (changed.trigger, changed.spec, changed.owner):
                return ()
            if known is None or known.trigger != changed.trigger:
                _must_come(parse_trigger(trigger, self._replica.now()), self._replica.now())
            _check_room(space, changed)
            return (changed,)

        space = await self._replica.change_space(spec.space, decide, by=principal.subject)
        return self._view(spec.space, space.schedules[name])

    async def list(self, principal: Principal, space: str | None = None) -> Sequence[dict[str, Any]]:
        """See the contract; by space and name."""
        if space is not None:
            require(principal, Verb.READ, Resource.TASK, space=space, what="space")
        found: list[dict[str, Any]] = []
        for state in sorted(self._replica.projection.spaces.values(), key=lambda one: one.space):
            if state.schedules and space in {None, state.space} and may(principal, Verb.READ, Resource.TASK, space=state.space):
                found += [self._view(state.space, state.schedules[name]) for name in sorted(state.schedules)]
        return found

    async def delete(self, principal: Principal, space: str, name: str) -> None:
        """See the contract; a task that was made stays."""
        require(principal, Verb.READ, Resource.TASK, space=space, what="schedule")
        if name not in self._replica.projection.space(space).schedules:
            raise not_found("schedule")

        def decide(state: SpaceState) -> Sequence[ScheduleChanged]:
            known = state.schedules.get(name)
            if known is None:
                return ()
            self._require_own(principal, space, known)
            return (ScheduleChanged(schedule=name),)

        await self._replica.change_space(space, decide, by=principal.subject)

    def _require_own(self, principal: Principal, space: str, schedule: ScheduleState) -> None:
        require(principal, Verb.UPDATE, Resource.TASK, space=space, own=schedule.owner == principal.account, what="schedule")

    def _checked(self, name: str, trigger: dict[str, Any], spec: TaskSpec, owner: str) -> ScheduleChanged:
        if _NAME.fullmatch(name) is None:
            raise _invalid("a schedule's name has 1 to 100 of A-Z a-z 0-9 _ . -")
        if spec.dependencies or spec.key is not None or spec.deadline is not None:
            raise _invalid("the task of a schedule has no dependencies, key or deadline: it is made again and again (a limit is timeoutSeconds)")
        parse_trigger(trigger, self._replica.now())
        plan((spec,), owner, self._settings.max_input_bytes, self._replica.now())
        body = msgspec.json.encode(spec)
        if len(body) > MOST_SPEC_BYTES:
            raise ApplianceError("too_large", f"the task of a schedule has at most {MOST_SPEC_BYTES} bytes", hint="put large data into a document")
        encoded = msgspec.json.encode(trigger, order="deterministic")
        return ScheduleChanged(schedule=name, trigger=msgspec.Raw(encoded), spec=msgspec.Raw(body), owner=owner)

    def _view(self, space: str, schedule: ScheduleState) -> dict[str, Any]:
        is_event = isinstance(stored_trigger(bytes(schedule.trigger)), EventTrigger)
        return {
            "name": schedule.name,
            "space": space,
            "owner": schedule.owner,
            "trigger": msgspec.json.decode(schedule.trigger),
            "spec": msgspec.json.decode(schedule.spec),
            "createdAt": schedule.created_at,
            "lastDue": None if is_event else schedule.last_due,
            "lastSequence": int(schedule.last_due) if is_event and schedule.last_due is not None else None,
            "lastTask": schedule.last_task or None,
            "nextDue": self._firing.next_due(space, schedule),
            "missed": schedule.missed,
        }


def _must_come(trigger: Trigger, now: float) -> None:
    if isinstance(trigger, ClockTrigger) and trigger.next_after(now, now) is None:
        raise _invalid("the time of the trigger is over")


def _check_room(space: SpaceState, changed: ScheduleChanged) -> None:
    others = [one for one in space.schedules.values() if one.name != changed.schedule]
    if len(others) >= MOST_SCHEDULES:
        raise ApplianceError("too_large", f"a space has at most {MOST_SCHEDULES} schedules", hint="delete one that is not needed")
    size = sum(len(bytes(one.spec)) for one in others) + len(bytes(changed.spec or b""))
    if size > MOST_SPACE_BYTES:
        raise ApplianceError("too_large", f"the schedules of a space have at most {MOST_SPACE_BYTES} bytes", hint="put large data into documents")


def _invalid(message: str) -> ApplianceError:
    return ApplianceError("task_invalid", message, hint="correct it and put it again; nothing was changed")
