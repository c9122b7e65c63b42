"""An order in which tasks of one submission can be done, or why there is none (Kahn 1962).

Pure: usable before ids are given, with the keys of a submission. Does not own: the graph of tasks that exist (``projection``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from appliance.kit.errors import ApplianceError

MOST_DEPENDENCIES: Final = 1000
NAMED: Final = 12  # tasks of a long cycle that the message names


def dependency_order(dependencies: Mapping[str, Sequence[str]], is_known: Callable[[str], bool], most: int = MOST_DEPENDENCIES) -> list[str]:
    """The tasks, each after those it depends on; otherwise in the order given.

    Args:
        dependencies: of each new task.
        is_known: whether a task outside the submission exists.
        most: dependencies one task may have.

    Raises:
        ApplianceError: ``task_invalid``: a dependency on itself, on something unknown, too many, or a cycle; the message names the tasks.
    """
    waiting: dict[str, int] = {}
    below: dict[str, list[str]] = {task: [] for task in dependencies}
    for task, above in dependencies.items():
        inside = _inside(task, above, dependencies, is_known, most)
        waiting[task] = len(inside)
        for dependency in inside:
            below[dependency].append(task)
    order = [task for task, number in waiting.items() if not number]
    for task in order:  # grows as it is read
        for dependent in below[task]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                order.append(dependent)
    if len(order) < len(dependencies):
        cycle = _cycle(dependencies, waiting)
        shown = cycle if len(cycle) <= NAMED + 1 else [*cycle[:NAMED], "…", cycle[-1]]
        raise ApplianceError(
            "task_invalid",
            "the dependencies form a cycle: " + " → ".join(shown),
            hint="each arrow reads 'depends on'; remove one of them",
            cycle=tuple(cycle[:-1]),
        )
    return order


def _inside(task: str, above: Sequence[str], new: Mapping[str, Sequence[str]], is_known: Callable[[str], bool], most: int) -> set[str]:
    if len(above) > most:
        raise ApplianceError("task_invalid", f"task {task} has {len(above)} dependencies", hint=f"at most {most}; put a task in between that gathers")
    if task in above:
        raise ApplianceError("task_invalid", f"task {task} depends on itself", hint="remove it from its own dependencies", cycle=(task,))
    unknown = next((dependency for dependency in above if dependency not in new and not is_known(dependency)), None)
    if unknown is not None:
        raise ApplianceError("task_invalid", f"task {task} depends on {unknown}, which does not exist", hint="submit it first, or with this one")
    return {dependency for dependency in above if dependency in new}


def _cycle(dependencies: Mapping[str, Sequence[str]], waiting: Mapping[str, int]) -> list[str]:
    """One cycle, its first task again at the end. Whatever still waits depends on something that still waits: follow it until it repeats."""
    task = next(task for task, number in waiting.items() if number)
    way: dict[str, int] = {}
    while task not in way:
        way[task] = len(way)
        task = next(dependency for dependency in dependencies[task] if waiting.get(dependency))
    return [*list(way)[way[task] :], task]
