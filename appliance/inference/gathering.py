"""Dynamic batching of queries: what waits is run together, and nothing waits when a thread is free.

Owns: the queue of texts and which of them go into one run. Does not own: the threads (``lanes``), what a run is.

Invariants:
1. A text that arrives while a thread of the query lane is free is run at once, alone: an idle service adds no wait.
2. The oldest text is always in the next run; the others in it are near it in length, so that little is padding.
3. A thread that has just run several texts, and finds fewer than a run may hold, waits up to ``wait_seconds`` for the callers that it has answered to
   come back. Without that, callers in step would be split into two runs for ever.
4. Every text that was taken is answered: with its row, or with what the run raised. One that its caller gave up before it was taken is not run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from appliance.inference.batches import CPU_LIMITS, BatchLimits
from appliance.inference.lanes import Lanes

Item = TypeVar("Item")
Row = TypeVar("Row")
WAIT_SECONDS: Final = 0.002


class QueryBatches(Generic[Item, Row]):
    """Thread-safe.

    Args:
        lanes: whose query lane runs the batches, and whose bound refuses more with ``overloaded``.
        run: items → one row each, in order; blocking.
        length: tokens of an item.
        limits: of one run.
        wait_seconds: see invariant 3; 0 = never.
    """

    def __init__(
        self,
        lanes: Lanes,
        run: Callable[[Sequence[Item]], Sequence[Row]],
        length: Callable[[Item], int],
        limits: BatchLimits = CPU_LIMITS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._lanes, self._run, self._length = lanes, run, length
        self._limits, self._wait_seconds = limits, wait_seconds
        self._arrived = threading.Condition()
        self._waiting: list[tuple[int, Item, Future[Row]]] = []
        self._shared = False
        self.runs = 0
        self.items = 0

    def submit(self, item: Item) -> Future[Row]:
        """The row of ``item``; cancel the future to give up.

        Raises:
            ApplianceError: ``overloaded``.
        """
        entry = (self._length(item), item, Future[Row]())
        with self._arrived:
            self._waiting.append(entry)
            self._arrived.notify()
        try:
            self._lanes.query(self._next_run)
        except BaseException:
            with self._arrived:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                    raise
            return entry[2]  # a thread has taken it meanwhile
        return entry[2]

    def with_limits(self, limits: BatchLimits, wait_seconds: float) -> QueryBatches[Item, Row]:
        """Another queue before the same threads and the same run: for whoever measures what the limits are worth."""
        return QueryBatches(self._lanes, self._run, self._length, limits, wait_seconds)

    def _next_run(self) -> None:
        """One run over what waits; nothing when another thread's run took it along."""
        taken = self._take()
        if not taken:
            return
        try:
            rows = self._run([item for _, item, _ in taken])
        except BaseException as failure:  # boundary: it belongs to those who wait, not to the thread
            for _, _, future in taken:
                future.set_exception(failure)
            return
        for (_, _, future), row in zip(taken, rows, strict=True):
            future.set_result(row)

    def _take(self) -> list[tuple[int, Item, Future[Row]]]:
        with self._arrived:
            if self._shared and self._waiting and self._wait_seconds:
                self._arrived.wait_for(lambda: len(self._chosen()) >= self._limits.texts, self._wait_seconds)
            chosen = self._chosen()
            self._waiting = [entry for entry in self._waiting if not any(entry is one for one in chosen)]
            taken = [entry for entry in chosen if entry[2].set_running_or_notify_cancel()]
            if chosen:
                self._shared = len(taken) > 1
                self.runs += 1
                self.items += len(taken)
            return taken

    def _chosen(self) -> list[tuple[int, Item, Future[Row]]]:
        """The oldest, and others in the order of their arrival while the run keeps its limits."""
        chosen: list[tuple[int, Item, Future[Row]]] = []
        narrowest = widest = 0
        for entry in self._waiting:
            low, high = min(entry[0], narrowest or entry[0]), max(entry[0], widest)
            fits = len(chosen) < self._limits.texts and (len(chosen) + 1) * high <= self._limits.tokens and high - low <= self._limits.padding
            if not chosen or fits:
                chosen.append(entry)
                narrowest, widest = low, high
        return chosen
