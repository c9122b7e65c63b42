"""Executors, and the policies and schedules of a space, as folds of their events. Pure; the counterpart of ``task_state`` for the other subjects."""

from __future__ import annotations

from typing import Final

import msgspec

from appliance.contracts.orchestrator.v1.values import EMPTY, ExecutorCapabilities, ExecutorStatus, ExecutorType
from services.orchestrator.domain import events as ev


class ExecutorState(msgspec.Struct, frozen=True, kw_only=True):
    """One executor. ``incarnation`` grows with each registration; claims of an earlier one are void.

    ``registered_seq`` is the sequence of the newest registration: it says everything, what lies below it may leave the log. An id may be taken over once its owner has left it: only claims made since ``owned_since`` are the owner's (:meth:`owner_of`).
    """

    id: str
    type: ExecutorType
    name: str
    capabilities: ExecutorCapabilities
    version: str
    endpoint: str
    max_load: int
    owner: str
    incarnation: int
    replica: str
    seq: int
    seen_at: float
    status: ExecutorStatus = ExecutorStatus.ONLINE
    gone: bool = False
    owned_since: int = 0
    spaces: tuple[str, ...] | None = None
    registered_seq: int = 0

    def owner_of(self, incarnation: int) -> str | None:
        """Whose a claim is that was made by the run ``incarnation``; None when that was another owner's."""
        return self.owner if incarnation >= self.owned_since else None

    def may_take_from(self, space: str) -> bool:
        """Whether it was offered work of the space when it registered."""
        return self.spaces is None or space in self.spaces


def owned_since(known: ExecutorState | None, owner: str, incarnation: int) -> int:
    """For a registration: since which incarnation the id is ``owner``'s."""
    return known.owned_since if known is not None and known.owner == owner else incarnation


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule. ``last_due`` is the due time (of an event trigger: the sequence of the event) that its newest task was made for (None: never).

    ``last_task`` is empty when that one was left out; ``missed`` counts due times without a task of their own.
    """

    name: str
    trigger: msgspec.Raw
    spec: msgspec.Raw
    owner: str
    created_at: float
    last_due: float | None = None
    last_task: str | None = None
    missed: int = 0


class SpaceState(msgspec.Struct, frozen=True, kw_only=True):
    """Rules and schedules of one space. ``grants``: actions that a person allowed for always → who."""

    space: str
    seq: int = 0
    policies: dict[str, str] = {}
    grants: dict[str, str] = {}
    schedules: dict[str, ScheduleState] = {}
    entries: int = 0


def apply_executor(state: ExecutorState | None, executor_id: str, envelope: ev.Envelope, seq: int) -> ExecutorState:
    """``state`` after one envelope."""
    for event in envelope.events:
        if isinstance(event, ev.ExecutorRegistered):
            state = ExecutorState(
                id=executor_id, type=event.type, name=event.executor_name or executor_id, capabilities=event.capabilities, version=event.version,
                endpoint=event.endpoint, max_load=event.max_load, owner=event.owner, incarnation=event.incarnation, replica=event.replica,
                seq=seq, seen_at=envelope.at, owned_since=event.owned_since, spaces=event.spaces,
                registered_seq=seq,
            )  # fmt: skip
        elif state is None:
            raise TypeError(f"{type(event).__name__} before ExecutorRegistered on {executor_id}")
        elif isinstance(event, ev.ExecutorStatusChanged):
            state = msgspec.structs.replace(state, status=event.status, seq=seq)
        elif isinstance(event, ev.ExecutorUnregistered):
            status = state.status if state.status is ExecutorStatus.DISABLED else ExecutorStatus.LOST  # an operator's stop is not left behind
            state = msgspec.structs.replace(state, gone=True, status=status, seq=seq)
        else:
            raise TypeError(f"{type(event).__name__} on {executor_id}")
    if state is None:
        raise TypeError(f"an empty envelope on {executor_id}")
    return state


def apply_space(state: SpaceState, envelope: ev.Envelope, seq: int) -> SpaceState:
    """``state`` after one envelope."""
    if envelope.events and isinstance(envelope.events[0], ev.SpaceCompacted):
        return msgspec.structs.replace(_SPACE.decode(envelope.events[0].state), seq=seq, entries=1)
    policies, grants, schedules = dict(state.policies), dict(state.grants), dict(state.schedules)
    for event in envelope.events:
        if isinstance(event, ev.PolicyChanged):
            rules = grants if event.source == "grant" else policies
            rules.pop(event.action, None)
            if event.mode is not None:
                rules[event.action] = envelope.by if event.source == "grant" else event.mode
        elif isinstance(event, ev.ScheduleChanged):
            _change_schedule(schedules, event, envelope.at)
        elif isinstance(event, ev.ScheduleFired):
            known = schedules.get(event.schedule)
            if known is not None:
                schedules[event.schedule] = msgspec.structs.replace(
                    known, last_due=event.due, last_task=event.task, missed=known.missed + event.missed
                )
        else:
            raise TypeError(f"{type(event).__name__} on space {state.space}")
    return SpaceState(space=state.space, seq=seq, policies=policies, grants=grants, schedules=schedules, entries=state.entries + 1)


def compacted_space(state: SpaceState) -> ev.SpaceCompacted:
    """The event that makes everything before it superfluous."""
    return ev.SpaceCompacted(state=msgspec.Raw(msgspec.json.encode(state)))


def _change_schedule(schedules: dict[str, ScheduleState], event: ev.ScheduleChanged, at: float) -> None:
    if event.spec is None:
        schedules.pop(event.schedule, None)
        return
    known = schedules.get(event.schedule)
    created = ScheduleState(name=event.schedule, trigger=event.trigger or EMPTY, spec=event.spec, owner=event.owner, created_at=at)
    same_trigger = known is not None and known.trigger == created.trigger
    if known is not None and same_trigger:  # due times go on from where they were, and a firing under way stays the same one
        created = msgspec.structs.replace(
            created, created_at=known.created_at, last_due=known.last_due, last_task=known.last_task, missed=known.missed
        )
    schedules[event.schedule] = created


_SPACE: Final = msgspec.json.Decoder(SpaceState)
