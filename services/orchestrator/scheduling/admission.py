"""Backpressure: how many tasks the box takes in before it says "later".

Owns: the limits and the refusal with a time to come back. Does not own: the counts (the projection knows them), sizes of tasks (``submission``), rate limits of callers (edge).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.kit.errors import ApplianceError

LEAST_RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What is refused.

    Attributes:
        open_tasks: not finished, in the whole box.
        open_tasks_per_space: the same in one space; lower, so that one space cannot close the door to others.
        open_types_per_space: different task types among the open tasks of one space (each costs the scheduler a little).
    """

    open_tasks: int = 250_000
    open_tasks_per_space: int = 150_000
    open_types_per_space: int = 1_000

    def __post_init__(self) -> None:
        if min(getattr(self, name) for name in self.__slots__) < 1:
            raise ApplianceError("settings_invalid", "a limit on tasks is not positive", hint="every limit is at least 1")


@dataclass(frozen=True, slots=True)
class BoxLoad:
    """What is open now, and how fast it goes.

    Attributes:
        open_tasks: in the box.
        by_space: in each space.
        types_by_space: different types among them.
        finished_per_second: recent rate; 0 = unknown.
    """

    open_tasks: int = 0
    by_space: Mapping[str, int] | None = None
    types_by_space: Mapping[str, int] | None = None
    finished_per_second: float = 0.0


def check_room(new_by_space: Mapping[str, int], load: BoxLoad, limits: AdmissionLimits, new_types_by_space: Mapping[str, int] | None = None) -> None:
    """Refuse a submission for which there is no room now.

    Args:
        new_by_space: how many tasks it would add to each space.
        load: what is open.
        limits: of the box.
        new_types_by_space: how many task types it would bring to each space that no open task there has.

    Raises:
        ApplianceError: ``overloaded`` with ``retry_after_seconds`` in its context: when so many will be finished that it fits, 1–60 s;
            ``too_large`` when it would not fit into an empty box.
    """
    rates = load.finished_per_second
    _fit("the box", load.open_tasks, sum(new_by_space.values()), limits.open_tasks, rates)
    for space, number in new_by_space.items():
        _fit(f"space {space}", (load.by_space or {}).get(space, 0), number, limits.open_tasks_per_space, rates)
    for space, number in (new_types_by_space or {}).items():
        _fit(f"space {space}", (load.types_by_space or {}).get(space, 0), number, limits.open_types_per_space, 0.0, "task types")


def _fit(where: str, there: int, new: int, limit: int, finished_per_second: float, what: str = "open tasks") -> None:
    if new > limit:
        raise _too_large(f"{where} cannot hold {new:,} new {what}", f"at most {limit:,} at a time; send them in parts")
    excess = there + new - limit
    if excess <= 0:
        return
    seconds = excess / finished_per_second if finished_per_second > 0 else LEAST_RETRY_SECONDS * 5
    seconds = min(max(seconds, LEAST_RETRY_SECONDS), MOST_RETRY_SECONDS)
    raise ApplianceError(
        "overloaded",
        f"{where} has {there:,} {what} and takes {limit:,}",
        hint=f"try again in {seconds:.0f} seconds, or start more executors",
        retry_after_seconds=seconds,
    )


def _too_large(message: str, hint: str) -> ApplianceError:
    return ApplianceError("too_large", message, hint=hint)
