"""Two lanes of threads: queries at once, bulk work when no query is there.

Invariants:
1. A query never queues behind bulk work: its lane has threads of its own.
2. Bulk work starts no batch while a query waits or runs, but after :data:`PATIENCE_SECONDS` it starts one, so that ingest always moves.
3. All threads have the same priority. A lower one for bulk threads looks kind but is not: one that is preempted while it holds the interpreter lock
   holds up the event loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from appliance.kit.errors import ApplianceError

PATIENCE_SECONDS: Final = 0.25
P = ParamSpec("P")
R = TypeVar("R")


class Lanes:
    """Runs functions that release the GIL.

    Args:
        query_threads: runs of queries side by side.
        bulk_threads: runs of bulk work side by side; 0 = as many as there are cores.
        max_waiting: queries that wait or run; more are refused.
        max_waiting_bulk: pieces of bulk work that wait or run; more are refused.
        name: of the service, ``embed``: for the names of threads and for the hint of what to raise.
    """

    def __init__(self, query_threads: int, bulk_threads: int, max_waiting: int, *, max_waiting_bulk: int = 4096, name: str = "embed") -> None:
        self.bulk_threads = bulk_threads or usable_cores()
        self._max_waiting = max_waiting
        self._max_waiting_bulk = max_waiting_bulk
        self._name = name
        self._bulk_pieces = 0
        self._queries = 0
        self._quiet = threading.Condition()
        self._query_lane = ThreadPoolExecutor(query_threads, f"{name}-query")
        self._bulk_lane = ThreadPoolExecutor(self.bulk_threads, f"{name}-bulk")

    def query(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run now.

        Raises:
            ApplianceError: ``overloaded``.
        """
        with self._quiet:
            if self._queries >= self._max_waiting:
                raise self._overloaded(f"APPLIANCE_{self._name.upper()}_MAX_WAITING_QUERIES")
            self._queries += 1
        try:
            future = self._query_lane.submit(work, *args, **kwargs)
        except BaseException:
            self._query_done()
            raise
        future.add_done_callback(lambda _: self._query_done())
        return future

    def bulk(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run when no query is there.

        Raises:
            ApplianceError: ``overloaded``.
        """

        def give_way() -> R:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._queries, PATIENCE_SECONDS)
            return work(*args, **kwargs)

        with self._quiet:
            if self._bulk_pieces >= self._max_waiting_bulk:
                raise self._overloaded("")
            self._bulk_pieces += 1
        try:
            future = self._bulk_lane.submit(give_way)
        except BaseException:
            self._bulk_done()
            raise
        future.add_done_callback(lambda _: self._bulk_done())
        return future

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._query_lane.shutdown(wait=True, cancel_futures=True)
        self._bulk_lane.shutdown(wait=True, cancel_futures=True)

    def _overloaded(self, setting: str) -> ApplianceError:
        hint = f"try again shortly, or raise {setting}" if setting else "try again shortly, with fewer calls side by side"
        return ApplianceError("overloaded", f"too many texts wait for the model ({self._name})", hint=hint, headers=((b"retry-after", b"1"),))

    def _bulk_done(self) -> None:
        with self._quiet:
            self._bulk_pieces -= 1

    def _query_done(self) -> None:
        with self._quiet:
            self._queries -= 1
            if not self._queries:
                self._quiet.notify_all()


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
