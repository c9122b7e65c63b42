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
    """Runs functions that release the GIL. ``max_waiting`` bounds the queries that wait or run."""

    def __init__(self, query_threads: int, bulk_threads: int, max_waiting: int) -> None:
        self.bulk_threads = bulk_threads or usable_cores()
        self._max_waiting = max_waiting
        self._queries = 0
        self._quiet = threading.Condition()
        self._query_lane = ThreadPoolExecutor(query_threads, "embed-query")
        self._bulk_lane = ThreadPoolExecutor(self.bulk_threads, "embed-bulk")

    def query(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run now.

        Raises:
            ApplianceError: ``overloaded``.
        """
        with self._quiet:
            if self._queries >= self._max_waiting:
                raise ApplianceError(
                    "overloaded", "too many texts wait to be embedded", hint="try again shortly, or raise APPLIANCE_EMBED_MAX_WAITING_QUERIES"
                )
            self._queries += 1
        try:
            future = self._query_lane.submit(work, *args, **kwargs)
        except BaseException:
            self._query_done()
            raise
        future.add_done_callback(lambda _: self._query_done())
        return future

    def bulk(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run when no query is there."""

        def give_way() -> R:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._queries, PATIENCE_SECONDS)
            return work(*args, **kwargs)

        return self._bulk_lane.submit(give_way)

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._query_lane.shutdown(wait=True, cancel_futures=True)
        self._bulk_lane.shutdown(wait=True, cancel_futures=True)

    def _query_done(self) -> None:
        with self._quiet:
            self._queries -= 1
            if not self._queries:
                self._quiet.notify_all()


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
