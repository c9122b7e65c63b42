"""Parse documents in worker processes, so that no file can take the box down.

Workers start when there is work, are replaced after any misbehaviour and after a number of documents,
and end when idle: an appliance at rest keeps none in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from appliance.kit.errors import ApplianceError
from appliance.kit.offline import PLACES, SWITCHES
from services.retrieval.domain import PreparedDocument
from services.retrieval.parsing.limits import DEFAULT_LIMITS, ParseLimits
from services.retrieval.parsing.reporting import ParseProgress
from services.retrieval.parsing.wire import ParseRequest
from services.retrieval.parsing.worker_process import OnProgress, StaleWorkerError, WorkerProcess

_ROOT: Final = Path(__file__).resolve().parents[3]
_WORKER: Final = "services.retrieval.parsing.worker"
_RECYCLE_AFTER: Final = 200
_IDLE_SECONDS: Final = 30.0


class ParserPool:
    """At most ``size`` workers.

    Args:
        size: documents parsed at the same time.
        limits: what one document may cost.
        idle_seconds: an unused worker ends after this time.
        recycle_after: documents after which a worker is replaced.
        command: the worker's command line; tests pass hostile ones.
    """

    def __init__(
        self,
        size: int,
        limits: ParseLimits = DEFAULT_LIMITS,
        *,
        idle_seconds: float = _IDLE_SECONDS,
        recycle_after: int = _RECYCLE_AFTER,
        command: Sequence[str] | None = None,
    ) -> None:
        self._limits = limits
        self._idle_seconds = idle_seconds
        self._recycle_after = recycle_after
        self._command = tuple(command or (sys.executable, "-s", "-P", "-m", _WORKER, str(os.getpid())))
        self._slots = asyncio.Semaphore(size)
        self._idle: list[tuple[WorkerProcess, asyncio.TimerHandle]] = []
        self._all: set[WorkerProcess] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Kill every worker and wait until each is gone."""
        self._open = False
        for _, timer in self._idle:
            timer.cancel()
        self._idle.clear()
        workers, self._all = self._all, set()
        for worker in workers:
            worker.kill()
        for worker in workers:
            await worker.wait()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the living workers, for metrics and tests."""
        return tuple(worker.pid for worker in self._all if worker.alive)

    async def parse(self, path: Path, name: str, *, on_progress: OnProgress | None = None) -> PreparedDocument:
        """Parse the file at ``path`` that the user calls ``name``.

        Waits for a free worker. Cancelling the call kills the worker that has the document.

        Args:
            path: readable by a worker.
            name: only its suffix matters.
            on_progress: called on the event loop with pages done and in all; must not block.

        Raises:
            ApplianceError: one of ``failures.FAILURE_CODES``, or ``unavailable`` when the pool is closed.
        """
        request = ParseRequest(str(path), name, self._limits)
        async with self._slots:
            self._check_open()
            if (idle := self._take_idle()) is not None:
                with contextlib.suppress(StaleWorkerError):
                    return await self._parse_with(idle, request, on_progress or _ignore)
            return await self._parse_with(await self._start(), request, on_progress or _ignore)

    async def _parse_with(self, worker: WorkerProcess, request: ParseRequest, on_progress: OnProgress) -> PreparedDocument:
        try:
            return await worker.parse(request, on_progress)
        except ApplianceError:
            self._check_open()
            raise
        except BaseException:
            worker.kill()
            raise
        finally:
            await self._give_back(worker)

    def _check_open(self) -> None:
        if not self._open:
            raise ApplianceError("unavailable", "documents are not being read now", hint="try again when the box is up")

    def _take_idle(self) -> WorkerProcess | None:
        while self._idle:
            worker, timer = self._idle.pop()
            timer.cancel()
            if worker.alive and worker.usable:
                return worker
            self._all.discard(worker)
        return None

    async def _start(self) -> WorkerProcess:
        try:
            worker = await WorkerProcess.start(self._command, _environment())
        except OSError as error:
            raise ApplianceError(
                "unavailable", "no process for reading documents could be started", hint="check memory and process limits"
            ) from error
        self._all = {kept for kept in self._all if kept.alive} | {worker}
        return worker

    async def _give_back(self, worker: WorkerProcess) -> None:
        """Keep a healthy worker for the next document; see any other one off."""
        if self._open and worker.alive and worker.usable and worker.documents < self._recycle_after:
            timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire, worker)
            self._idle.append((worker, timer))
            return
        worker.kill()
        self._all.discard(worker)
        await asyncio.shield(worker.wait())

    def _retire(self, worker: WorkerProcess) -> None:
        """Ask an idle worker to end; it is forgotten once it is gone."""
        self._idle = [(kept, timer) for kept, timer in self._idle if kept is not worker]
        worker.retire()


def _ignore(_: ParseProgress) -> None:
    """Progress that nobody asked for."""


def _environment() -> dict[str, str]:
    """The few variables a worker needs and the switches of the sealed process; no proxy, no secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "TESSDATA_PREFIX") if name in os.environ}
    sealed = {**SWITCHES, **{name: os.environ[name] for name in PLACES if name in os.environ}}
    return {**kept, **sealed, "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8", "OMP_THREAD_LIMIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
