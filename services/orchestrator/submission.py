"""Specs to tasks-to-be: ids, dependencies by key, limits, cycles. Pure; what it needs to know of other tasks it is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.contracts.orchestrator.v1.values import TaskSpec
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.events import TaskCreated
from services.orchestrator.identifiers import TASK, derived_id, new_id
from services.orchestrator.scheduling.dependency_order import dependency_order

MOST_DEPENDENCIES: Final = 1_000
MOST_TEXT: Final = 20_000
MOST_METADATA_BYTES: Final = 16_384
MOST_ATTEMPTS: Final = 100
_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,99}")
_KEY: Final = re.compile(r"[^\x00-\x1f\x7f]{1,200}")


@dataclass(frozen=True, slots=True)
class Planned:
    """A task to be created: where its spec stood, and which of its dependencies are outside the submission."""

    at: int
    id: str
    created: TaskCreated
    outside: tuple[str, ...]


def plan(specs: Sequence[TaskSpec], owner: str, max_input_bytes: int, now: float, parent: str | None = None) -> list[Planned]:
    """Every spec with its id and resolved dependencies, in an order in which dependencies come first.

    Raises:
        ApplianceError: ``task_invalid`` (self-dependency, cycle, doubled key, bad value), ``too_large``.
    """
    for number, spec in enumerate(specs):
        _check(spec, number, max_input_bytes, now)
    scope = () if parent is None else (parent,)  # a delegated task's key is its parent's own business
    ids = [derived_id(TASK, spec.space, owner, *scope, spec.key) if spec.key is not None else new_id(TASK) for spec in specs]
    by_key: dict[str, str] = {}
    for spec, task_id in zip(specs, ids, strict=True):
        if spec.key is not None and by_key.setdefault(spec.key, task_id) != task_id:
            raise _invalid(f"the key {spec.key!r} is given twice in different spaces")
    if len(set(ids)) != len(ids):
        raise _invalid("two tasks of the submission have the same key")
    known = set(ids)
    resolved = [tuple(dict.fromkeys(by_key.get(name, name) for name in spec.dependencies)) for spec in specs]
    order = _order([spec.key or f"#{at}" for at, spec in enumerate(specs)], resolved, ids)
    return [
        Planned(at, ids[at], _created(specs[at], owner, resolved[at], parent), tuple(one for one in resolved[at] if one not in known)) for at in order
    ]


def _created(spec: TaskSpec, owner: str, dependencies: tuple[str, ...], parent: str | None) -> TaskCreated:
    """Payloads are copied: what came decoded from a request would keep the whole request in memory."""
    return TaskCreated(
        type=spec.type, space=spec.space, owner=owner, description=spec.description, input_data=spec.input_data.copy(), priority=spec.priority,
        deadline=spec.deadline, dependencies=dependencies, key=spec.key, executor_type=spec.executor_type, output_schema=None if spec.output_schema is None else spec.output_schema.copy(),
        retry=spec.retry, timeout_seconds=spec.timeout_seconds, metadata=spec.metadata.copy(), parent=parent,
    )  # fmt: skip


def _check(spec: TaskSpec, number: int, max_input_bytes: int, now: float) -> None:
    where = f"task {spec.key or number}"
    if _TYPE.fullmatch(spec.type) is None:
        raise _invalid(f"{where}: a type has 1 to 100 of A-Z a-z 0-9 _ . : / -")
    if spec.key is not None and _KEY.fullmatch(spec.key) is None:
        raise _invalid(f"{where}: a key has 1 to 200 printable characters")
    if not 0 <= spec.priority <= 100:
        raise _invalid(f"{where}: a priority is a number from 0 to 100")
    if spec.deadline is not None and not now < spec.deadline < now + 10 * 366 * 86_400:
        raise _invalid(f"{where}: a deadline is a time to come, in Unix seconds, at most ten years ahead")
    if spec.timeout_seconds is not None and not 0 < spec.timeout_seconds <= 30 * 86_400:
        raise _invalid(f"{where}: a timeout is above 0 and at most 30 days")
    if len(spec.description) > MOST_TEXT or len(spec.dependencies) > MOST_DEPENDENCIES:
        raise _invalid(f"{where}: at most {MOST_TEXT} characters of description and {MOST_DEPENDENCIES} dependencies")
    retry = spec.retry
    if not (1 <= retry.max_attempts <= MOST_ATTEMPTS and 0 <= retry.first_seconds <= 86_400 and 1 <= retry.factor <= 10):
        raise _invalid(f"{where}: a retry policy has 1 to {MOST_ATTEMPTS} attempts, 0 to 86400 first seconds, a factor from 1 to 10")
    if not 0 <= retry.most_seconds <= 7 * 86_400:
        raise _invalid(f"{where}: most_seconds of a retry policy is 0 to 604800")
    _check_sizes(spec, where, max_input_bytes)


def _check_sizes(spec: TaskSpec, where: str, max_input_bytes: int) -> None:
    if len(bytes(spec.input_data)) > max_input_bytes:
        hint = "upload large data as a document and pass its id"
        raise ApplianceError("too_large", f"{where}: inputData has at most {max_input_bytes} bytes", hint=hint)
    if len(bytes(spec.metadata)) > MOST_METADATA_BYTES:
        raise ApplianceError("too_large", f"{where}: metadata has at most {MOST_METADATA_BYTES} bytes", hint="put data into inputData")
    for name, raw in (("inputData", spec.input_data), ("metadata", spec.metadata)):
        if not isinstance(_decoded(raw, f"{where}: {name}"), dict):
            raise _invalid(f"{where}: {name} is an object")


def _decoded(raw: msgspec.Raw, what: str) -> Any:
    if raw == b"{}":
        return {}
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _invalid(f"{what} is not JSON") from exc


def _order(names: Sequence[str], resolved: Sequence[tuple[str, ...]], ids: Sequence[str]) -> list[int]:
    """Dependencies first. A cycle can only be within a submission: what exists already depends on nothing new."""
    position = {task_id: at for at, task_id in enumerate(ids)}
    inside = {names[at]: [names[position[one]] for one in dependencies if one in position] for at, dependencies in enumerate(resolved)}
    place = {name: at for at, name in enumerate(names)}
    return [place[name] for name in dependency_order(inside, lambda _: False)]


def _invalid(message: str) -> ApplianceError:
    return ApplianceError("task_invalid", message, hint="correct it and submit again; nothing was made")
