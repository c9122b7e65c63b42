"""The child process that runs registered functions: ``python -m …function_worker <configuration as JSON>``.

It owns an event loop and serves many jobs at once; messages come and go on an inherited socket (``frames``). It trusts its parent; the parent does not
trust it. Functions share this process: what separates them from each other is their number of processes, not this module.

``Board`` is memory shared with the parent, so that it can see what a worker that says nothing is doing: which job has the loop, and that the loop turns.
"""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import mmap
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Final, NoReturn

import msgspec
import uvloop

from appliance.contracts.functions.v1.api import REGISTERED, LaterError, RefusedError
from services.orchestrator.executors.board import BEAT, BOARD_BYTES, JOB, SERIAL
from services.orchestrator.executors.frames import WORKER_DECODER, Answer, Done, Durable, Failed, FrameChannel, Hello, Start
from services.orchestrator.executors.job import AsyncContext, AttemptEndedError, BlockingContext, Job, TooLargeError, as_json
from services.orchestrator.executors.loading import load_functions, registered
from services.orchestrator.executors.sandbox import WorkerLimits, follow_parent, seal

_BEAT_SECONDS: Final = 0.1
_MOST_TRACE: Final = 4_000
_MOST_FRAMES: Final = 20
_MOST_MESSAGE: Final = 1_000
_LARGEST_REQUEST: Final = 1 << 30

_current: Final[contextvars.ContextVar[int]] = contextvars.ContextVar("job", default=0)


class WorkerConfig(msgspec.Struct, frozen=True):
    """What the parent wants. File descriptors are inherited; ``most_bytes`` is the largest JSON value of a function."""

    parent: int
    socket: int
    board: int
    notes: int
    modules: tuple[str, ...]
    plugins: str | None
    most_bytes: int
    limits: WorkerLimits


class Marked(Coroutine[Any, Any, Any]):
    """A coroutine that writes on the board that its job has the loop, while it has it."""

    __slots__ = ("_board", "_job", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], board: memoryview, job: int) -> None:
        self._work = work
        self._board = board
        self._job = job

    def send(self, value: Any) -> Any:
        """Of coroutines."""
        board = self._board
        board[JOB] = self._job
        board[SERIAL] += 1
        try:
            return self._work.send(value)
        finally:
            board[JOB] = 0

    def throw(self, *error: Any) -> Any:
        """Of coroutines."""
        self._board[JOB] = self._job
        self._board[SERIAL] += 1
        try:
            return self._work.throw(*error)
        finally:
            self._board[JOB] = 0

    def close(self) -> None:
        """Of coroutines."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()


class FunctionWorker:
    """All jobs of this process."""

    def __init__(self, config: WorkerConfig, board: memoryview) -> None:
        self._config = config
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[int, Job] = {}
        self._held_back: list[Job] = []
        self.ended = asyncio.Event()
        self.channel = FrameChannel(WORKER_DECODER, _LARGEST_REQUEST, self._on_messages, lambda _: self.ended.set(), self._flush_steps)
        self._loop.set_task_factory(self._make_task)
        self._beat()

    def _beat(self) -> None:
        self._board[BEAT] += 1
        self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        context = options.get("context")
        job = _current.get() if context is None else context.get(_current, 0)
        return asyncio.Task(Marked(work, self._board, job) if job else work, loop=loop, **options)

    def _flush_steps(self) -> None:
        held_back, self._held_back = self._held_back, []
        for job in held_back:
            job.flush()

    def _hold_back(self, job: Job) -> None:
        self._held_back.append(job)
        self.channel.schedule()

    def _on_messages(self, messages: Sequence[Any]) -> None:
        jobs = self._jobs
        for message in messages:
            if type(message) is Start:
                self._start(message)
                continue
            job = jobs.get(message.job)
            if job is None:
                continue
            if type(message) is Durable:
                job.is_now_durable(message)
            elif type(message) is Answer:
                job.answer(message.call, message.body, failed=message.failed)
            elif job.task is not None:
                job.task.cancel()

    def _start(self, message: Start) -> None:
        job = Job(message, self.channel, self._hold_back, self._config.most_bytes)
        context = contextvars.copy_context()
        context.run(_current.set, message.job)
        self._jobs[message.job] = job
        job.task = self._loop.create_task(self._run(job), context=context)

    async def _run(self, job: Job) -> None:
        """Run the function to its end and say how it ended; nothing a function raises gets past here."""
        try:
            result = as_json("the result", await self._called(job), self._config.most_bytes)
            steps, job.pending = tuple(job.pending), []
            self.channel.send(Done(job.number, result, steps), len(result))
        except BaseException as error:
            steps, job.pending = tuple(job.pending), []
            self.channel.send(_told(job.number, error, steps))
            if isinstance(error, MemoryError | SystemError):
                self.channel.flush()
        finally:
            del self._jobs[job.number]

    async def _called(self, job: Job) -> Any:
        wanted = REGISTERED.get(job.start.function)
        if wanted is None:
            raise RefusedError(f"there is no function {job.start.function!r}")
        data = msgspec.json.decode(job.start.input)
        called = wanted.call
        if _is_async(called):
            return await called(AsyncContext(job), data)
        return await _in_thread(self._loop, called, BlockingContext(job, self._loop), data)


_async_known: Final[dict[Any, bool]] = {}


def _is_async(called: Callable[..., Any]) -> bool:
    known = _async_known.get(called)
    if known is None:
        known = _async_known[called] = asyncio.iscoroutinefunction(called)
    return known


async def _in_thread(loop: asyncio.AbstractEventLoop, called: Callable[..., Any], context: BlockingContext, data: Any) -> Any:
    """Run a plain function in a thread of its own, which nobody waits for at the end."""
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def say(value: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((value, error))

    def run() -> None:
        try:
            value, error = called(context, data), None
        except BaseException as raised:
            value, error = None, raised
        loop.call_soon_threadsafe(say, value, error)

    threading.Thread(target=run, daemon=True).start()
    value, error = await ended
    if error is not None:
        raise error
    return value


def _told(job: int, error: BaseException, steps: tuple[tuple[str, bytes], ...]) -> Failed:
    """How it failed, in any case: there may be no memory left to say why."""
    try:
        return _failure(job, error, steps)
    except BaseException:
        return Failed(job, "failed", "executor_failed", "it failed, and telling why failed too", "", steps, True)


def _failure(job: int, error: BaseException, steps: tuple[tuple[str, bytes], ...]) -> Failed:
    message = _said(error)
    if isinstance(error, asyncio.CancelledError):
        return Failed(job, "cancelled", "cancelled", "stopped", "", steps)
    if isinstance(error, AttemptEndedError):
        return Failed(job, "ended", "executor_failed", message, "", steps)
    if isinstance(error, RefusedError):
        return Failed(job, "refused", error.code, message, "", steps)
    if isinstance(error, LaterError):
        return Failed(job, "later", "", message, "", steps)
    if isinstance(error, TooLargeError):
        return Failed(job, "refused", "result_invalid", message, "", steps)
    fatal = isinstance(error, MemoryError)
    return Failed(job, "failed", "executor_failed", f"{type(error).__name__}: {message}", _trace(error), steps, fatal)


def _said(error: BaseException) -> str:
    """Its message, cut; somebody else's ``__str__`` may do anything."""
    try:
        return str(error)[:_MOST_MESSAGE] or type(error).__name__
    except Exception:
        return f"an error of class {type(error).__name__}, which cannot be shown"


def _trace(error: BaseException) -> str:
    """Where it was raised, innermost last."""
    return "".join(traceback.format_tb(error.__traceback__, -_MOST_FRAMES))[-_MOST_TRACE:]


async def _serve(config: WorkerConfig, board: memoryview, problems: tuple[str, ...], sealed: str) -> None:
    worker = FunctionWorker(config, board)
    connection = socket.socket(fileno=config.socket)
    await asyncio.get_running_loop().create_connection(lambda: worker.channel, sock=connection)
    worker.channel.send(Hello(registered(), problems, sealed))
    await worker.ended.wait()


def main() -> NoReturn:
    """Serve until the socket closes. What goes wrong before the first function is loaded is on stderr, which the parent keeps; later there is nobody."""
    config = msgspec.json.decode(sys.argv[1], type=WorkerConfig)
    follow_parent(config.parent)
    faulthandler.enable(config.notes)
    board = memoryview(mmap.mmap(config.board, BOARD_BYTES)).cast("Q")
    nothing = os.open(os.devnull, os.O_RDWR)
    sealed = seal(config.limits)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    problems = load_functions(config.modules, config.plugins)
    uvloop.run(_serve(config, board, problems, sealed))
    os._exit(0)


if __name__ == "__main__":
    main()
