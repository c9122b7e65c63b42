"""The function workers of a box: those that many tasks share, and those that serve one at a time. Owns their number, their restarts and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.orchestrator.executors.board import Board
from services.orchestrator.executors.frames import Hello
from services.orchestrator.executors.loading import BUILT_IN
from services.orchestrator.executors.retrying import Backoff
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.executors.worker_process import WORKER, FunctionProcess, WorkerLostError

ENTRY_POINTS: Final = "appliance.functions"
_INSPECT_SECONDS: Final = 0.1
_SOUND_SECONDS: Final = 30.0
_OPEN_FILES: Final = 256
_WRITTEN_BYTES: Final = 64 * 1024
_SOLO_JOBS: Final = 200
_SOLO_IDLE_SECONDS: Final = 60.0
_SPARE_CHECK_SECONDS: Final = 1.0
_SPARE_AFTER_SECONDS: Final = 2.0  # a box that starts has better things to do: what it did when it was killed goes on first
_log = get_logger(__name__)
_BACKOFF: Final = Backoff(first_seconds=0.1, most_seconds=5.0)


class WorkerGroup:
    """All workers of one executor. ``hello`` is what the newest worker said: the functions there are, and what could not be loaded."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self._settings = settings
        self._config: dict[str, Any] = {}
        self._shared: list[FunctionProcess] = []
        self._idle: list[FunctionProcess] = []
        self._spare: FunctionProcess | None = None
        self._spare_taken = asyncio.Event()
        self._all: set[FunctionProcess] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._solo = asyncio.Semaphore(settings.solo_workers)
        self._changed = asyncio.Event()
        self._open = False
        self.hello: Hello | None = None
        self.problem = "not started"

    async def start(self) -> None:
        """Start the shared workers and wait for the first.

        Raises:
            ApplianceError: ``executor_failed``: it did not come up.
        """
        self._config = await asyncio.to_thread(self._worker_config)
        self._open = True
        first = await self._new_shared_or_refuse()
        self._admit(first)
        assert self.hello is not None
        _log.info("function_workers_started", sealed=self.hello.sealed, functions=len(self.hello.functions), not_loaded=list(self.hello.problems))
        self._tasks = [asyncio.create_task(self._keep(first if number == 0 else None)) for number in range(self._settings.workers)]
        self._tasks += [asyncio.create_task(self._inspect()), asyncio.create_task(self._keep_spare())]

    async def stop(self) -> None:
        """Kill every worker and wait until each is gone."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in tuple(self._all)))
        self._all.clear()
        self._idle.clear()
        self._shared.clear()
        self._changed.set()

    @property
    def workers(self) -> tuple[FunctionProcess, ...]:
        """The living ones."""
        return tuple(self._all)

    async def shared(self) -> FunctionProcess:
        """The shared worker with the fewest jobs; waits while there is none, or all are full."""
        slots = self._settings.slots_per_worker
        while True:
            self._check_open()
            best = min((worker for worker in self._shared if worker.is_usable), key=lambda worker: len(worker.jobs), default=None)
            if best is not None and len(best.jobs) < slots:
                return best
            self._changed.clear()
            await self._changed.wait()

    @asynccontextmanager
    async def solo(self) -> AsyncIterator[FunctionProcess]:
        """A worker for one job; it is kept for the next unless something happened."""
        async with self._solo:
            self._check_open()
            worker = self._take_idle() or await self._next_worker(alone=True)
            try:
                yield worker
            finally:
                if self._open and worker.is_usable and not worker.jobs and worker.served < _SOLO_JOBS:
                    self._idle.append(worker)
                else:
                    await asyncio.shield(worker.kill())

    def freed(self) -> None:
        """A slot of a shared worker may be free: wake those who wait."""
        self._changed.set()

    def _check_open(self) -> None:
        if not self._open:
            raise ApplianceError("unavailable", "the function workers are stopped", hint="try again when the box is up")

    def _take_idle(self) -> FunctionProcess | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_usable:
                return worker
        return None

    async def _new_shared_or_refuse(self) -> FunctionProcess:
        try:
            return await self._start_worker(alone=False)
        except (WorkerLostError, OSError) as error:
            notes = error.notes[-500:] if isinstance(error, WorkerLostError) else ""
            raise ApplianceError(
                "executor_failed", f"no function worker could be started: {error}", hint=notes or "check memory and process limits"
            ) from error

    async def _keep(self, worker: FunctionProcess | None) -> None:
        """Have one shared worker, for ever: a new one at once when one ends, later and later when they end young."""
        failures = 0
        while True:
            try:
                if worker is None:
                    worker = await self._next_worker(alone=False)
                    self._admit(worker)
            except (WorkerLostError, OSError) as error:
                self.problem, failures = str(error), failures + 1
                await asyncio.sleep(_BACKOFF.delay(failures))
                continue
            await self._until_unusable(worker)
            self._shared.remove(worker)
            now = asyncio.get_running_loop().time()
            failures = 0 if now - worker.started_at > _SOUND_SECONDS else failures + 1
            worker = None
            if failures > 1:
                await asyncio.sleep(_BACKOFF.delay(failures - 1))

    def _admit(self, worker: FunctionProcess) -> None:
        self._shared.append(worker)
        self.problem = ""
        self._changed.set()

    async def _keep_spare(self) -> None:
        """Have one more worker ready, so that the loss of another costs no time."""
        await asyncio.sleep(_SPARE_AFTER_SECONDS)
        await asyncio.to_thread(_compile_worker)
        failures = 0
        while True:
            if self._spare is None or not self._spare.is_usable:
                try:
                    self._spare = await self._start_worker(alone=False)
                except (WorkerLostError, OSError) as error:
                    self.problem, failures = str(error), failures + 1
                    await asyncio.sleep(_BACKOFF.delay(failures))
                    continue
            failures = 0
            self._spare_taken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SPARE_CHECK_SECONDS):
                    await self._spare_taken.wait()

    async def _next_worker(self, *, alone: bool) -> FunctionProcess:
        """The spare one, or a new one."""
        spare, self._spare = self._spare, None
        self._spare_taken.set()
        if spare is None or not spare.is_usable:
            return await self._start_worker(alone=alone)
        spare.alone = alone
        return spare

    async def _until_unusable(self, worker: FunctionProcess) -> None:
        """Wait until it is dead or retired (a retired one ends by itself)."""
        while worker.is_usable:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INSPECT_SECONDS):
                    await worker.gone.wait()

    async def _inspect(self) -> None:
        while True:
            await asyncio.sleep(_INSPECT_SECONDS)
            for worker in tuple(self._all):
                try:
                    worker.inspect()
                except Exception:  # whoever watches must not fall asleep over one
                    _log.exception("function_worker_not_inspected")
                if worker.gone.is_set():
                    self._all.discard(worker)
            self._changed.set()
            self._end_idle()

    def _end_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        for worker in tuple(self._idle):
            if now - worker.used_at > _SOLO_IDLE_SECONDS or not worker.is_usable:
                self._idle.remove(worker)
                worker.retired = True

    async def _start_worker(self, *, alone: bool) -> FunctionProcess:
        settings = self._settings
        worker = FunctionProcess(
            Board(), settings.most_result_bytes, alone=alone, blocked_seconds=settings.blocked_seconds, cancel_seconds=settings.cancel_seconds
        )
        self._all.add(worker)
        try:
            self.hello = await worker.start(self._config)
        except BaseException:
            await asyncio.shield(worker.kill())
            self._all.discard(worker)
            raise
        return worker

    def _worker_config(self) -> dict[str, Any]:
        settings = self._settings
        plugins = str(settings.plugins_folder.absolute()) if settings.plugins_folder is not None else None
        named = [point.module for point in entry_points(group=ENTRY_POINTS)]
        root = Path(__file__).resolve().parents[3]  # in a checkout the box's own folder may lie in it: only the packages
        readable = [
            *(path for path in sys.path if Path(path) != root),
            str(root / "appliance"),
            str(root / "services"),
            sys.prefix,
            sys.base_prefix,
            "/usr/lib",
            "/usr/lib64",
            "/lib",
            "/lib64",
        ]
        readable += ["/usr/share/zoneinfo", "/etc/localtime", "/dev/null", "/dev/urandom", "/proc/self", *([plugins] if plugins else [])]
        return {
            "modules": list(dict.fromkeys([*settings.function_modules, *named])),
            "plugins": plugins,
            "most_bytes": settings.most_result_bytes,
            "limits": {
                "address_space_bytes": settings.memory_bytes,
                "open_files": _OPEN_FILES,
                "written_file_bytes": _WRITTEN_BYTES,
                "readable": [path for path in dict.fromkeys(readable) if path],
            },
        }


def _compile_worker() -> None:
    """Import what else only workers do: its bytecode is kept where this process may write, and workers, which may not, start from it."""
    for module in (WORKER, BUILT_IN):
        import_module(module)
