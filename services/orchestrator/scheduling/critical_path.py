"""The critical path of a task: the longest way from its start to the end of everything that waits for it, in expected seconds. Pure; bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

MOST_VISITED: Final = 1_000


def critical_path_seconds(
    task_id: str, dependents: Callable[[str], Iterable[str]], seconds: Callable[[str], float], most: int = MOST_VISITED
) -> float:
    """Longest path in the DAG below ``task_id``, itself included (weights on nodes; depth first, each node once).

    Args:
        task_id: where it begins.
        dependents: open tasks that wait for a task.
        seconds: expected time of a task.
        most: how many tasks are looked at; what lies beyond does not count.
    """
    longest: dict[str, float] = {}
    visited = 0
    stack: list[tuple[str, bool]] = [(task_id, False)]
    while stack:
        current, is_left = stack.pop()
        if is_left:
            longest[current] = seconds(current) + max((longest.get(one, 0.0) for one in dependents(current)), default=0.0)
        elif current not in longest and visited < most:
            visited += 1
            longest[current] = 0.0  # seen; its value comes when everything below it has one
            stack.append((current, True))
            stack += [(one, False) for one in dependents(current) if one not in longest]
    return longest[task_id]
