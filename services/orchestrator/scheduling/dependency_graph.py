"""Which task waits for which: a directed acyclic graph over task ids.

Owns: refusal of cycles, unknown and own dependencies; what becomes ready when a task completes; what fails with a task that failed; critical
paths. Does not own: tasks, or the decision to retry (``reopen`` follows it).

Invariants:
* Dependencies are known when a task is added, so a cycle can only be inside one submission; it is refused whole, nothing is added.
* A task is ready exactly when it is open and each of its dependencies was marked completed.
* When a task fails, everything open that waits for it, directly or not, fails with it.
* A task whose critical path is not computed has no open dependency whose path is: marking stops at marked ones, so all changes together cost
  no more than the computations that use them.

Bounded: finished tasks are forgotten, the longest finished first, beyond ``most_finished`` (``dependency_order``'s limits bound what is added).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.scheduling.dependency_order import dependency_order

MOST_FINISHED: Final = 100_000
SHOWN: Final = 1000


class NodeState(Enum):
    """Open tasks may still complete."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NewNode:
    """A task to be added: what it waits for, and how long it is expected to take."""

    id: str
    dependencies: tuple[str, ...] = ()
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Added:
    """What came of tasks that were added: those ready now, and those that can only fail because a dependency failed already."""

    ready: tuple[str, ...]
    doomed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Everything a task depends on and everything that depends on it, nearest first; ``edges`` are (dependency, dependent)."""

    ids: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    is_complete: bool


class _Node:
    __slots__ = ("dependencies", "dependents", "path", "seconds", "state", "waits_for")

    def __init__(self, new: NewNode) -> None:
        self.dependencies = new.dependencies
        self.dependents: dict[str, None] = {}
        self.waits_for: set[str] = set()
        self.seconds = max(new.seconds, 0.0)
        self.path: float | None = None
        self.state = NodeState.OPEN


class DependencyGraph:
    """See the module."""

    def __init__(self, *, most_finished: int = MOST_FINISHED) -> None:
        self._nodes: dict[str, _Node] = {}
        self._finished: dict[str, None] = {}
        self._most_finished = most_finished

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._nodes

    def add(self, new: Iterable[NewNode], completed: Collection[str] = ()) -> Added:
        """Add tasks, all or none, in any order.

        Args:
            new: they may depend on each other and on tasks that are here.
            completed: dependencies that are not here (forgotten) and that the caller knows to be completed.

        Raises:
            ApplianceError: ``task_invalid``: an id twice, an unknown or own dependency, a cycle (named), too many dependencies.
        """
        nodes = {node.id: node for node in self._unique(new)}
        order = dependency_order({node.id: node.dependencies for node in nodes.values()}, lambda id_: id_ in self._nodes or id_ in completed)
        ready: list[str] = []
        doomed: list[str] = []
        for task_id in order:
            node = self._nodes[task_id] = _Node(nodes[task_id])
            for dependency in node.dependencies:
                if (above := self._nodes.get(dependency)) is None:
                    continue
                above.dependents[task_id] = None
                if above.state is not NodeState.COMPLETED:
                    node.waits_for.add(dependency)
            if any(self._nodes[dependency].state is NodeState.FAILED for dependency in node.waits_for):
                self._finish(task_id, NodeState.FAILED)
                doomed.append(task_id)
            else:
                self._forget_paths(node.dependencies)
                if not node.waits_for:
                    ready.append(task_id)
        self._tidy()
        return Added(tuple(ready), tuple(doomed))

    def complete(self, task_id: str) -> tuple[str, ...]:
        """It is completed: the tasks that are ready now because of it. Again, or after it failed: none.

        Raises:
            ApplianceError: ``task_state`` when it still waits for something.
        """
        node = self._nodes.get(task_id)
        if node is None or node.state is not NodeState.OPEN:
            return ()
        if node.waits_for:
            raise ApplianceError("task_state", f"task {task_id} still waits for {min(node.waits_for)}", hint="complete its dependencies first")
        self._finish(task_id, NodeState.COMPLETED)
        ready = []
        for dependent in node.dependents:
            below = self._nodes[dependent]
            below.waits_for.discard(task_id)
            if not below.waits_for and below.state is NodeState.OPEN:
                ready.append(dependent)
        self._tidy()
        return tuple(ready)

    def fail(self, task_id: str) -> tuple[str, ...]:
        """It failed for good: everything that fails with it, nearest first; these are marked, too, so that failing them again gives none."""
        node = self._nodes.get(task_id)
        if node is None or node.state is not NodeState.OPEN:
            return ()
        self._finish(task_id, NodeState.FAILED)
        doomed: list[str] = []
        queue = deque([node])
        while queue:
            for dependent in queue.popleft().dependents:
                below = self._nodes[dependent]
                if below.state is NodeState.OPEN:
                    self._finish(dependent, NodeState.FAILED)
                    doomed.append(dependent)
                    queue.append(below)
        for failed in (task_id, *doomed):
            self._forget_paths(self._nodes[failed].dependencies)
        self._tidy()
        return tuple(doomed)

    def reopen(self, task_id: str) -> bool:
        """A failed task is tried again; True when it is ready. Reopen what it depends on first.

        Raises:
            ApplianceError: ``not_found``; ``task_state`` when it did not fail or a dependency has failed (or was forgotten after it failed).
        """
        node = self._nodes.get(task_id)
        if node is None:
            raise ApplianceError("not_found", f"task {task_id} not found", hint="it finished long ago; submit it again")
        if node.state is not NodeState.FAILED:
            raise ApplianceError("task_state", f"task {task_id} has not failed", hint="only failed tasks are tried again")
        for dependency in node.dependencies:
            above = self._nodes.get(dependency)
            if dependency in node.waits_for and (above is None or above.state is NodeState.FAILED):
                raise ApplianceError("task_state", f"task {task_id} depends on {dependency}, which failed", hint=f"retry {dependency} first")
        node.state = NodeState.OPEN
        del self._finished[task_id]
        node.path = None
        self._forget_paths(node.dependencies)
        return not node.waits_for

    def state(self, task_id: str) -> NodeState | None:
        """None when it is not here."""
        node = self._nodes.get(task_id)
        return node.state if node else None

    def blocked_by(self, task_id: str) -> tuple[str, ...]:
        """Dependencies that are not completed, in the order they were given."""
        node = self._nodes.get(task_id)
        return tuple(dependency for dependency in node.dependencies if dependency in node.waits_for) if node else ()

    def dependents(self, task_id: str) -> tuple[str, ...]:
        """Those that depend on it directly."""
        node = self._nodes.get(task_id)
        return tuple(node.dependents) if node else ()

    def critical_path_seconds(self, task_id: str) -> float:
        """The longest way from its start to the end of the last open task that waits for it, itself included; 0 when it is not open."""
        node = self._nodes.get(task_id)
        if node is None or node.state is not NodeState.OPEN:
            return 0.0
        stack = [task_id]
        while stack:
            current = self._nodes[stack[-1]]
            if current.path is not None:
                stack.pop()
                continue
            below = self._open(current.dependents)
            if missing := [dependent for dependent in below if self._nodes[dependent].path is None]:
                stack.extend(missing)
            else:
                current.path = current.seconds + max((self._nodes[dependent].path or 0.0 for dependent in below), default=0.0)
        return node.path or 0.0

    def neighbourhood(self, task_id: str, limit: int = SHOWN) -> Neighbourhood:
        """For display: at most ``limit`` tasks, found breadth first in both directions."""
        if task_id not in self._nodes:
            return Neighbourhood((), (), is_complete=True)
        up, is_all_up = self._reach(task_id, limit, upwards=True)
        down, is_all_down = self._reach(task_id, limit - len(up), upwards=False)
        ids = (task_id, *up, *down)
        shown = set(ids)
        edges = tuple((above, below) for below in ids for above in self._nodes[below].dependencies if above in shown)
        return Neighbourhood(ids, edges, is_all_up and is_all_down)

    def forget(self, task_id: str) -> bool:
        """Let go of a finished task; False when it is open or not here. Whoever waited for it knows already what became of it."""
        if task_id not in self._finished:
            return False
        del self._finished[task_id]
        node = self._nodes.pop(task_id)
        for dependency in node.dependencies:
            if above := self._nodes.get(dependency):
                above.dependents.pop(task_id, None)
        return True

    def _unique(self, new: Iterable[NewNode]) -> Sequence[NewNode]:
        seen: set[str] = set()
        nodes = list(new)
        for node in nodes:
            if node.id in seen or node.id in self._nodes:
                raise ApplianceError("task_invalid", f"task {node.id} is there already", hint="every task has an id of its own")
            seen.add(node.id)
        return nodes

    def _finish(self, task_id: str, state: NodeState) -> None:
        self._nodes[task_id].state = state
        self._finished[task_id] = None

    def _tidy(self) -> None:
        while len(self._finished) > self._most_finished:
            self.forget(next(iter(self._finished)))

    def _open(self, ids: Iterable[str]) -> list[str]:
        return [id_ for id_ in ids if self._nodes[id_].state is NodeState.OPEN]

    def _forget_paths(self, ids: Iterable[str]) -> None:
        """The paths of these and of everything they depend on change; finished ones have none that counts."""
        stack = list(ids)
        while stack:
            node = self._nodes.get(stack.pop())
            if node is not None and node.state is NodeState.OPEN and node.path is not None:
                node.path = None
                stack.extend(node.dependencies)

    def _reach(self, task_id: str, limit: int, *, upwards: bool) -> tuple[list[str], bool]:
        found: dict[str, None] = {}
        queue = deque([task_id])
        while queue:
            node = self._nodes[queue.popleft()]
            beyond: Iterable[str] = node.dependencies if upwards else node.dependents
            for other in beyond:
                if other in found or other not in self._nodes:
                    continue
                if len(found) + 1 >= limit:
                    return list(found), False
                found[other] = None
                queue.append(other)
        return list(found), True


def as_nodes(dependencies: Mapping[str, Sequence[str]], seconds: float = 1.0) -> list[NewNode]:
    """Tasks given as ``{id: dependencies}``."""
    return [NewNode(task_id, tuple(above), seconds) for task_id, above in dependencies.items()]
