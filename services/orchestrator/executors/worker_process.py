"""One function worker as the box sees it: start it, give it jobs, watch it, doubt it, kill it.

Owns: the child process, the jobs on it, who is to blame for its death. Does not own: how many workers there are (``worker_group``), or what a job's
messages mean (``algorithmic``).

Invariants:
1. A job ends exactly once: with ``Done`` or ``Failed`` from the worker, or with a :class:`WorkerLostError` when the worker is gone.
2. When a worker dies, at most one job is guilty: the one that held its loop, or the only one there was. The others are merely lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.kit.logging import get_logger
from appliance.kit.offline import PLACES, SWITCHES
from services.orchestrator.executors.board import BEAT, JOB, SERIAL, Board
from services.orchestrator.executors.frames import BOX_DECODER, Answer, Cancel, Done, Durable, Failed, FrameChannel, Hello, Progress, Start

_ROOT: Final = Path(__file__).resolve().parents[3]
WORKER: Final = "services.orchestrator.executors.function_worker"
_MOST_WAITING: Final = 4_096
_EXIT_SECONDS: Final = 5.0
_ABORT_SECONDS: Final = 0.3
_LAG_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 30.0
_REPLACED: Final = "it was replaced"
_log = get_logger(__name__)
HELLO_SECONDS: Final = 20.0


class WorkerLostError(Exception):
    """The worker of a job is gone.

    Attributes:
        code: ``executor_timeout``, ``executor_failed``, ``cancelled``, ``unavailable`` (the box stops).
        guilty: it was this job.
        innocent: it was another job, or nobody's fault; neither is set when nobody knows.
        notes: where each thread was, as far as the worker could write it.
    """

    def __init__(self, message: str, *, code: str = "executor_failed", guilty: bool = False, innocent: bool = False, notes: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.guilty = guilty
        self.innocent = innocent
        self.notes = notes


class RunningJob:
    """A task on a worker. ``deadline`` (loop time) is moved while a person is waited for; ``ending`` says why it was asked to stop."""

    __slots__ = ("_waiter", "_worker", "deadline", "ended", "ending", "number", "questions", "queue", "task_id", "waits_since")

    def __init__(self, worker: FunctionProcess, number: int, task_id: str, deadline: float) -> None:
        self._worker = worker
        self._waiter: asyncio.Future[None] | None = None
        self.number = number
        self.task_id = task_id
        self.deadline = deadline
        self.queue: deque[Any] = deque()
        self.ending: str | None = None
        self.ended: WorkerLostError | None = None
        self.waits_since: float | None = None
        self.questions = 0

    def clock_off(self) -> None:
        """A question of the job is open: its time stands still."""
        self.questions += 1
        if self.questions == 1 and self.ending is None:
            self.waits_since = asyncio.get_running_loop().time()

    def clock_on(self) -> None:
        """It is answered."""
        self.questions -= 1
        if self.questions == 0 and self.waits_since is not None:
            self.deadline += asyncio.get_running_loop().time() - self.waits_since
            self.waits_since = None

    async def next(self) -> Any:
        """The next message of the job, in order; raises :class:`WorkerLostError`."""
        while not self.queue:
            if self.ended is not None:
                raise self.ended
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.queue.popleft()

    def put(self, message: Any) -> bool:
        """Keep a message for :meth:`next`; False when there are too many."""
        self.queue.append(message)
        self._wake()
        return len(self.queue) <= _MOST_WAITING

    def lose(self, error: WorkerLostError) -> None:
        """The worker is gone."""
        self.ended = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def say_durable(self, count: int) -> None:
        """The first ``count`` steps are durable."""
        self._worker.send(Durable(self.number, count))

    def answer(self, call: int, body: bytes, *, failed: bool = False) -> None:
        """Answer a question of the job."""
        self._worker.send(Answer(self.number, call, body, failed), len(body))

    def stop(self, why: str) -> None:
        """Ask the job to end: ``timeout`` or ``cancelled``; a worker that it does not leave is given up."""
        self._worker.stop_job(self, why)


class FunctionProcess:
    """A running worker. ``alone``: it gets one job at a time, and is killed to end that."""

    def __init__(self, board: Board, most_bytes: int, *, alone: bool, blocked_seconds: float, cancel_seconds: float) -> None:
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._process: asyncio.subprocess.Process | None = None
        self._channel = FrameChannel(BOX_DECODER, 4 * most_bytes + 1024**2, self._on_messages, self._on_lost)
        self.send = self._channel.send
        self._blocked_seconds = blocked_seconds
        self._cancel_seconds = cancel_seconds
        self._numbers = 0
        self._beat = (0, self._loop.time())
        self._held = (0, 0, 0.0)
        self._inspected = self._loop.time()
        self._verdict: tuple[str, str, int] | None = None
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._burial: asyncio.Task[None] | None = None
        self.alone = alone
        self.jobs: dict[int, RunningJob] = {}
        self.served = 0
        self.retired = False
        self._retired_at = 0.0
        self.gone = asyncio.Event()
        self.started_at = self.used_at = self._loop.time()

    @property
    def pid(self) -> int:
        """Process id, for metrics and tests."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it takes jobs."""
        return not self.retired and self._verdict is None and self._burial is None

    async def start(self, config: dict[str, Any]) -> Hello:
        """Start the process and wait until it is ready.

        Raises:
            WorkerLostError: it did not come up; ``notes`` is what it wrote.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            passed = (theirs.fileno(), self._board.descriptor, self._board.notes_descriptor)
            whole = {**config, "parent": os.getpid(), "socket": passed[0], "board": passed[1], "notes": passed[2]}
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-s", "-P", "-m", WORKER, msgspec.json.encode(whole).decode(),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=self._board.notes_descriptor,
                pass_fds=passed, env=_environment(), cwd="/", start_new_session=True,
            )  # fmt: skip
        ours.setblocking(False)
        await self._loop.create_connection(lambda: self._channel, sock=ours)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                return await asyncio.shield(self._hello)
        except TimeoutError:
            self._condemn("it did not start", "executor_failed", 0)
            raise WorkerLostError("the function worker did not start in time", notes=self._board.notes()) from None

    def begin(self, start: Start, timeout_seconds: float) -> RunningJob:
        """Give it a job; ``start.job`` is set here."""
        self._numbers += 1
        self.served += 1
        self.used_at = self._loop.time()
        job = RunningJob(self, self._numbers, start.task, self._loop.time() + timeout_seconds)
        self.jobs[job.number] = job
        self.send(Start(job.number, start.task, start.function, start.input, start.metadata, start.attempt, start.steps), len(start.input))
        return job

    def stop_job(self, job: RunningJob, why: str) -> None:
        """See :meth:`RunningJob.stop`."""
        if job.number not in self.jobs or job.ending is not None:
            return
        job.ending = why
        job.waits_since = None
        job.deadline = self._loop.time() + self._cancel_seconds
        if self.alone:
            self._condemn("it took too long" if why == "timeout" else "stopped", "executor_timeout" if why == "timeout" else "cancelled", job.number)
        else:
            self.send(Cancel(job.number))

    def _on_messages(self, messages: Sequence[Any]) -> None:
        jobs = self.jobs
        for message in messages:
            kind = type(message)
            if kind is Hello:
                if not self._hello.done():
                    self._hello.set_result(message)
                continue
            job = jobs.get(message.job)
            if job is None:
                continue
            if kind is Done or kind is Failed:
                del jobs[message.job]
                if kind is Failed and message.fatal:
                    self.retired = True
            elif kind is Progress and len(job.queue) > 64:
                continue
            if not job.put(message):
                self._condemn("it sent more messages than the box could take", "executor_failed", job.number)
                return

    def inspect(self) -> None:
        """Look at the worker, some times a second: does its loop turn, does a job take too long."""
        now = self._loop.time()
        if now - self._inspected > _LAG_SECONDS:  # we slept, perhaps the worker did too: count from now
            self._beat, self._held = (self._beat[0], now), (*self._held[:2], now)
        self._inspected = now
        if self.jobs and self._burial is None:
            self._check_loop(now)
        for job in tuple(self.jobs.values()):
            if now > job.deadline and job.waits_since is None:
                self._overdue(job)
        if self.retired:
            self._retired_at = self._retired_at or now
            if not self.jobs or now - self._retired_at > _DRAIN_SECONDS:
                self._condemn(_REPLACED, "executor_failed", 0)

    def _check_loop(self, now: float) -> None:
        words = self._board.words
        if self._beat[0] != words[BEAT]:
            self._beat = (words[BEAT], now)
        if self._held[:2] != (words[JOB], words[SERIAL]):
            self._held = (words[JOB], words[SERIAL], now)
        if now - self._beat[1] > self._blocked_seconds and not self.alone:
            long = now - self._held[2] > self._blocked_seconds / 2
            guilty = self._held[0] if long else 0
            self._condemn(f"it held its worker's event loop for {self._blocked_seconds:g} s", "executor_timeout", guilty, abort=True)

    def _overdue(self, job: RunningJob) -> None:
        if job.ending is None:
            self.stop_job(job, "timeout")
            return
        self.retired = True  # the job does not listen: nothing new comes here, and the process ends with the last of the others
        del self.jobs[job.number]
        job.lose(WorkerLostError("it did not end when it was asked to", code=_code_of(job), guilty=True))

    def _condemn(self, why: str, code: str, guilty: int, *, abort: bool = False) -> None:
        """Kill the worker; ``guilty`` is the number of the job at fault. ``abort`` lets it write where it is, first."""
        if self._verdict is not None:
            return
        self._verdict = (why, code, guilty)
        if abort and self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGABRT)
            self._loop.call_later(_ABORT_SECONDS, self._signal, signal.SIGKILL)
        else:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _on_lost(self, error: Exception | None) -> None:
        if self._burial is None:
            self._burial = self._loop.create_task(self._bury(error))

    async def _bury(self, error: Exception | None) -> None:
        """Wait for the end of the process, and tell every job what it was."""
        held = self._board.running
        status = await self._exit_status()
        why, code, guilty = self._verdict or (f"its worker ended ({_ending(status)})" + (f": {error}" if error else ""), "executor_failed", 0)
        if self._verdict is None and status != -signal.SIGKILL:
            guilty = held
        notes = self._board.notes()
        jobs, self.jobs = self.jobs, {}
        known = guilty in jobs or why is _REPLACED
        for job in jobs.values():
            blamed = job.number == guilty or (self.alone and code != "unavailable")
            said = why if blamed else f"its worker was lost ({why})"
            job.lose(WorkerLostError(said, code=code, guilty=blamed, innocent=known and not blamed, notes=notes if blamed else ""))
        if code != "unavailable" and why is not _REPLACED:
            _log.warning(
                "function_worker_lost",
                pid=self.pid,
                why=why,
                jobs=len(jobs),
                task=jobs[guilty].task_id if guilty in jobs else "",
                notes=notes[-1000:],
            )
        if not self._hello.done():
            self._hello.set_exception(WorkerLostError(f"the function worker did not start: {why}", notes=notes))
            self._hello.exception()  # seen, whoever waits
        self._channel.close()
        self._board.close()
        self.gone.set()

    async def _exit_status(self) -> int:
        assert self._process is not None
        try:
            async with asyncio.timeout(_EXIT_SECONDS if self._verdict is None else _ABORT_SECONDS + _EXIT_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await self._process.wait()

    async def kill(self) -> None:
        """End it now; its jobs are lost with code ``unavailable``."""
        self._condemn("the box stops", "unavailable", 0)
        if self._process is None:
            self._board.close()
            return
        self._on_lost(None)  # the connection may not be there yet, or may never have been
        await self.gone.wait()


def _code_of(job: RunningJob) -> str:
    return "executor_timeout" if job.ending == "timeout" else "cancelled"


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _environment() -> dict[str, str]:
    """The few variables a worker needs and the switches of the sealed process; no proxy, no secrets. ``-S`` keeps its start short, so the path is given."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
    sealed = {**SWITCHES, **{name: os.environ[name] for name in PLACES if name in os.environ}}
    paths = [str(_ROOT), *(path for path in sys.path if path and Path(path).is_absolute() and path != str(_ROOT))]
    return {
        **kept, **sealed, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2",
    }  # fmt: skip
