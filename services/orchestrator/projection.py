"""What this replica knows: the fold of the log in memory. Owns: states, what depends on what, who holds what. Does not own: writing, scheduling, timers.

Invariants:
1. Applying is idempotent per subject: an envelope whose sequence is not above the state's is skipped, so own writes may be applied when they are
   acknowledged and met again in the tail.
2. A dependency is met when its task is ``completed``; completed tasks never change, so a task once free stays free.
3. Terminal tasks leave memory, oldest first, above ``keep_terminal``; the log still has them (``Replica.load``). What open tasks depend on stays.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from appliance.contracts.orchestrator.v1.values import TaskStatus
from appliance.kit.logging import get_logger
from services.orchestrator.domain.events import Compacted, Envelope, TaskCreated, TaskDropped
from services.orchestrator.domain.registry import ExecutorState, SpaceState, apply_executor, apply_space
from services.orchestrator.domain.task_state import TaskState, apply_envelope, owned_state
from services.orchestrator.domain.upcasting import decode_envelope
from services.orchestrator.ports import Recorded
from services.orchestrator.subjects import EXECUTORS, TASKS, subject_names

_TASK_SUBJECTS = f"{TASKS}."
_log = get_logger(__name__)
TaskListener = Callable[[TaskState | None, TaskState, Envelope], None]


class Projection:
    """Tasks, executors and spaces. ``position`` is the newest sequence that the tail has brought.

    Args:
        keep_terminal: how many terminal tasks stay in memory.
    """

    def __init__(self, keep_terminal: int) -> None:
        self.tasks: dict[str, TaskState] = {}
        self.executors: dict[str, ExecutorState] = {}
        self.spaces: dict[str, SpaceState] = {}
        self.position = 0
        self.held: dict[str, dict[str, None]] = {}
        self.children: dict[str, dict[str, None]] = {}
        self.dependents: dict[str, dict[str, None]] = {}
        self.unmet: dict[str, set[str]] = {}
        self.open_count = 0
        self.open_by_space: dict[str, int] = {}
        self.open_types: dict[str, Counter[str]] = {}
        self._keep_terminal = keep_terminal
        self._terminal: OrderedDict[str, None] = OrderedDict()
        self._task_listeners: list[TaskListener] = []
        self._executor_listeners: list[Callable[[ExecutorState], None]] = []
        self._space_listeners: list[Callable[[SpaceState], None]] = []

    def listen(
        self,
        *,
        task: TaskListener | None = None,
        executor: Callable[[ExecutorState], None] | None = None,
        space: Callable[[SpaceState], None] | None = None,
    ) -> None:
        """Be called after each change, in order, synchronously: listeners only note what they have to do."""
        if task is not None:
            self._task_listeners.append(task)
        if executor is not None:
            self._executor_listeners.append(executor)
        if space is not None:
            self._space_listeners.append(space)

    def absorb(self, recorded: Recorded) -> bool:
        """Take in one entry of the tail (or of a read); what is known already costs a look-up.

        False: it goes on with a task that is not in memory (an ended one that was reopened): the task has to be read whole.
        """
        subject = recorded.subject
        known = self.tasks.get(subject[subject.rfind(".") + 1 :])  # own entries come back here: most are known, and cost no more than this
        if known is not None and known.seq >= recorded.sequence and subject.startswith(_TASK_SUBJECTS):
            return True
        kind, *names = subject_names(subject)
        name = names[-1]
        if kind == TASKS:
            if known is None or known.seq < recorded.sequence:
                envelope = decode_envelope(recorded.body)
                if known is None and not isinstance(envelope.events[0], TaskCreated | Compacted):
                    return isinstance(envelope.events[0], TaskDropped)
                self.apply_task(name, envelope, recorded.sequence)
        elif kind == EXECUTORS:
            executor = self.executors.get(name)
            if executor is None or executor.seq < recorded.sequence:
                self.apply_executor(name, decode_envelope(recorded.body), recorded.sequence)
        elif self.space(name).seq < recorded.sequence:
            self.apply_space(name, decode_envelope(recorded.body), recorded.sequence)
        return True

    def apply_task(self, task_id: str, envelope: Envelope, sequence: int) -> TaskState:
        """One envelope of a task; the new state."""
        before = self.tasks.get(task_id)
        after = apply_envelope(before, task_id, envelope, sequence)
        self.put_task(before, after)
        for listener in self._task_listeners:
            try:
                listener(before, after, envelope)
            except Exception:  # what has happened has happened: one listener's bug must not hide it from the others, or from the caller
                _log.exception("listener_broke", task=task_id)
        if after.dropped:
            self.forget(task_id)
        return after

    def apply_executor(self, executor_id: str, envelope: Envelope, sequence: int) -> ExecutorState:
        """One envelope of an executor; the new state."""
        after = apply_executor(self.executors.get(executor_id), executor_id, envelope, sequence)
        self.executors[executor_id] = after
        for listener in self._executor_listeners:
            listener(after)
        return after

    def apply_space(self, space: str, envelope: Envelope, sequence: int) -> SpaceState:
        """One envelope of a space; the new state."""
        after = apply_space(self.space(space), envelope, sequence)
        self.spaces[space] = after
        for listener in self._space_listeners:
            listener(after)
        return after

    def space(self, name: str) -> SpaceState:
        """Rules and schedules of a space; empty when it has none."""
        return self.spaces.get(name) or SpaceState(space=name)

    def load(self, tasks: Iterable[TaskState], executors: Iterable[ExecutorState], spaces: Iterable[SpaceState], position: int) -> None:
        """Begin from a snapshot; only on an empty projection. Of the listeners only those of spaces are told."""
        for state in tasks:
            self.put_task(None, owned_state(state))
        self.executors.update((executor.id, executor) for executor in executors)
        self.spaces.update((space.space, space) for space in spaces)
        self.position = position
        for space in self.spaces.values():
            for listener in self._space_listeners:
                listener(space)

    def put_task(self, before: TaskState | None, after: TaskState) -> None:
        """Keep the new state and everything that is looked up by it."""
        task_id = after.id
        self.tasks[task_id] = after
        if before is None:
            self._index(after)
        elif before.is_terminal and not after.is_terminal:
            self._reopen(after)
        if before is not None and before.executor is not None and before.is_held:
            self._let_go(before.executor, task_id)
        if after.is_held and after.executor is not None:
            self.held.setdefault(after.executor, {})[task_id] = None
        if after.is_terminal and (before is None or not before.is_terminal):
            if before is not None:
                self._count(after, -1)
            self._end(after)

    def is_free(self, state: TaskState) -> bool:
        """Claimable, and every dependency is completed."""
        return state.is_claimable and state.id not in self.unmet

    def failed_dependency(self, state: TaskState) -> str | None:
        """Id of a dependency that failed, when there is one."""
        for dependency in self.unmet.get(state.id, ()):
            known = self.tasks.get(dependency)
            if known is not None and known.status is TaskStatus.FAILED:
                return dependency
        return None

    def meet(self, task_id: str, dependency: str) -> None:
        """``dependency`` is completed (looked up outside, when it was not in memory)."""
        waiting = self.unmet.get(task_id)
        if waiting is not None:
            waiting.discard(dependency)
            if not waiting:
                del self.unmet[task_id]

    def _index(self, state: TaskState) -> None:
        if state.parent is not None:
            self.children.setdefault(state.parent, {})[state.id] = None
        for dependency in state.dependencies:
            self.dependents.setdefault(dependency, {})[state.id] = None
        if state.is_terminal:
            return
        self._count(state, 1)
        unmet = {dependency for dependency in state.dependencies if not self._is_completed(dependency)}
        if unmet:
            self.unmet[state.id] = unmet

    def _is_completed(self, task_id: str) -> bool:
        known = self.tasks.get(task_id)
        return known is not None and known.status is TaskStatus.COMPLETED

    def _count(self, state: TaskState, by: int) -> None:
        self.open_count += by
        left = self.open_by_space.get(state.space, 0) + by
        if left:
            self.open_by_space[state.space] = left
        else:
            self.open_by_space.pop(state.space, None)
        types = self.open_types.setdefault(state.space, Counter())
        types[state.type] += by
        if not types[state.type]:
            del types[state.type]
            if not types:
                del self.open_types[state.space]

    def _let_go(self, executor: str, task_id: str) -> None:
        mine = self.held.get(executor)
        if mine is not None:
            mine.pop(task_id, None)
            if not mine:
                del self.held[executor]

    def _end(self, state: TaskState) -> None:
        self._terminal[state.id] = None
        self.unmet.pop(state.id, None)
        if state.status is TaskStatus.COMPLETED:
            for dependent in self.dependents.get(state.id, ()):
                self.meet(dependent, state.id)
        while len(self._terminal) > self._keep_terminal:
            oldest = next(iter(self._terminal))
            if any(not self.tasks[one].is_terminal for one in self.dependents.get(oldest, ()) if one in self.tasks):
                self._terminal.move_to_end(oldest)
                break
            self.forget(oldest)

    def _reopen(self, state: TaskState) -> None:
        self._terminal.pop(state.id, None)
        self._count(state, 1)
        unmet = {dependency for dependency in state.dependencies if not self._is_completed(dependency)}
        if unmet:
            self.unmet[state.id] = unmet

    def vanish(self, task_id: str) -> None:
        """The log has no such task any more: it ended and was dropped while this replica did not look."""
        state = self.tasks.get(task_id)
        if state is not None and not state.is_terminal:
            self._count(state, -1)
            self.unmet.pop(task_id, None)
            if state.executor is not None:
                self._let_go(state.executor, task_id)
        self.forget(task_id)

    def forget(self, task_id: str) -> None:
        """Drop a terminal task from memory."""
        self._terminal.pop(task_id, None)
        state = self.tasks.pop(task_id, None)
        if state is None:
            return
        self.dependents.pop(task_id, None)
        self.children.pop(task_id, None)
        if state.parent is not None and state.parent in self.children:
            self.children[state.parent].pop(task_id, None)
        for dependency in state.dependencies:
            if dependency in self.dependents:
                self.dependents[dependency].pop(task_id, None)
