"""A task inside a function worker: its steps, its questions to the box, and the two faces it shows to functions. Runs in the worker.

Invariants:
1. A step runs only when every step before it is durable (pipelining: its own result is returned before it is).
2. What ``step`` returns is what a later attempt would get: the value after a turn through JSON.
3. Steps and the result go out in the order in which they were made; those of one turn of the loop share a frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from appliance.contracts.functions.v1.api import FunctionContext
from services.orchestrator.executors.frames import Call, Durable, FrameChannel, Progress, Start, Steps

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_PROGRESS_EVERY_SECONDS: Final = 0.1
_MOST_NAME: Final = 200
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.decode


class AttemptEndedError(Exception):
    """The box refused to go on; it knows why. Functions should let it pass."""


class TooLargeError(ValueError):
    """A value is larger than the box takes."""


def as_json(what: str, value: object, most_bytes: int) -> bytes:
    """``value`` as JSON; raises TypeError or TooLargeError that name ``what``."""
    try:
        body = _encode(value)
    except RecursionError:
        raise TypeError(f"{what} is nested too deeply, or contains itself") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{what} is not JSON: {error}") from None
    if len(body) > most_bytes:
        raise TooLargeError(f"{what} has {len(body)} bytes, {most_bytes} are allowed")
    return body


class Job:
    """State of one running task. All methods run on the worker's loop."""

    __slots__ = (
        "_calls", "_channel", "_durable", "_flush_later", "_latest", "_loop", "_most_bytes", "_named", "_progress_at", "_sent", "_started", "_waiting", "number",
        "pending", "start", "task",
    )  # fmt: skip

    def __init__(self, start: Start, channel: FrameChannel, flush_later: Callable[[Job], None], most_bytes: int) -> None:
        self.number = start.job
        self.start = start
        self.pending: list[tuple[str, bytes]] = []
        self.task: asyncio.Task[None] | None = None
        self._channel = channel
        self._flush_later = flush_later
        self._most_bytes = most_bytes
        self._named: set[str] = set()
        self._sent = 0
        self._durable = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._started = 0
        self._progress_at = 0.0
        self._latest: Progress | None = None
        self._loop = asyncio.get_running_loop()

    def finished(self, name: str) -> bytes | None:
        """Result of a step of an earlier attempt; takes the name."""
        if name in self._named:
            raise ValueError(f"two steps of this run have the name {name!r}")
        if not name or len(name) > _MOST_NAME:
            raise ValueError(f"a step's name has 1 to {_MOST_NAME} characters")
        self._named.add(name)
        return self.start.steps.get(name)

    async def all_durable(self) -> None:
        """Return when every step so far is durable."""
        if self._durable < self._sent:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    @property
    def is_durable(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._durable >= self._sent

    def keep(self, name: str, value: object) -> Any:
        """Send a step's result; the value as JSON has it."""
        body = as_json(f"the result of step {name!r}", value, self._most_bytes)
        self.pending.append((name, body))
        self._sent += 1
        self._flush_later(self)
        return value if type(value) in _PLAIN else _decode(body)

    def flush(self) -> None:
        """Send the steps that are held back."""
        if self.pending:
            steps, self.pending = tuple(self.pending), []
            self._channel.send(Steps(self.number, steps), sum(len(body) for _, body in steps))

    def is_now_durable(self, message: Durable) -> None:
        """The box says so."""
        self._durable = message.count
        if self._durable >= self._sent and self._waiting:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def progress(self, fraction: float, note: str) -> None:
        """Send it, or keep it for later when one was sent a moment ago."""
        message = Progress(self.number, min(max(float(fraction), 0.0), 1.0), str(note)[:_MOST_NAME])
        if self._latest is not None:
            self._latest = message
            return
        wait = self._progress_at + _PROGRESS_EVERY_SECONDS - self._loop.time()
        if wait <= 0:
            self._progress_at = self._loop.time()
            self._channel.send(message)
        else:
            self._latest = message
            self._loop.call_later(wait, self._send_latest)

    def _send_latest(self) -> None:
        message, self._latest = self._latest, None
        if message is not None and self.task is not None and not self.task.done():
            self._progress_at = self._loop.time()
            self._channel.send(message)

    async def ask(self, what: str, question: object) -> Any:
        """Ask the box and wait for its answer."""
        await self.all_durable()
        body = as_json(f"what was given to {what}", question, self._most_bytes)
        self._started += 1
        call, answer = self._started, self._loop.create_future()
        self._calls[call] = answer
        self._channel.send(Call(self.number, call, what, body), len(body))
        try:
            return _decode(await answer)
        finally:
            self._calls.pop(call, None)

    def answer(self, call: int, body: bytes, *, failed: bool) -> None:
        """The box answers a question."""
        future = self._calls.get(call)
        if future is not None and not future.done():
            if failed:
                future.set_exception(AttemptEndedError(body.decode(errors="replace")))
            else:
                future.set_result(body)


class AsyncContext(FunctionContext):
    """The face for ``async`` functions."""

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def task_id(self) -> str:
        return self._job.start.task

    @property
    def attempt(self) -> int:
        return self._job.start.attempt

    @property
    def metadata(self) -> Mapping[str, Any]:
        found = _decode(self._job.start.metadata)
        return found if isinstance(found, dict) else {}

    @property
    def idempotency_key(self) -> str:
        return self._job.start.task

    async def step(self, name: str, what: Callable[..., Any] | Awaitable[Any], *arguments: Any) -> Any:
        job = self._job
        done = job.finished(name)
        if done is not None:
            if not callable(what):
                _forget(what)
            return _decode(done)
        if not job.is_durable:
            await job.all_durable()
        value = what(*arguments) if callable(what) else what
        if isinstance(value, Awaitable):
            value = await value
        return job.keep(name, value)

    def progress(self, fraction: float, note: str = "") -> None:
        self._job.progress(fraction, note)

    async def checkpoint(self, state: Any) -> str:
        kept: str = await self._job.ask("save", state)
        return kept

    async def restore(self) -> Any:
        return await self._job.ask("restore", None)

    async def effect(
        self, action: str, arguments: Mapping[str, Any], run: Callable[[Mapping[str, Any]], Any], context: Mapping[str, Any] | None = None
    ) -> Any:
        answer = await self._job.ask("effect", {"action": action, "arguments": arguments, "context": context})
        if answer["done"]:
            return answer["outcome"]
        outcome = run(answer["arguments"])
        if isinstance(outcome, Awaitable):
            outcome = await outcome
        await self._job.ask("finish", {"approval": answer["approval"], "outcome": outcome})
        return outcome


class BlockingContext:
    """The face for plain functions, which run in a thread; steps run in that thread."""

    __slots__ = ("_async", "_job", "_loop")

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._loop = loop
        self._async = AsyncContext(job)

    @property
    def task_id(self) -> str:
        """See ``FunctionContext``; so all others."""
        return self._async.task_id

    @property
    def attempt(self) -> int:
        return self._async.attempt

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._async.metadata

    @property
    def idempotency_key(self) -> str:
        return self._async.idempotency_key

    def step(self, name: str, what: Callable[..., Any], *arguments: Any) -> Any:
        done = self._wait(self._begin(name))
        if done is not None:
            return _decode(done)
        return self._wait(self._keep(name, what(*arguments)))

    def progress(self, fraction: float, note: str = "") -> None:
        self._loop.call_soon_threadsafe(self._job.progress, fraction, note)

    def checkpoint(self, state: Any) -> str:
        kept: str = self._wait(self._async.checkpoint(state))
        return kept

    def restore(self) -> Any:
        return self._wait(self._async.restore())

    def effect(
        self, action: str, arguments: Mapping[str, Any], run: Callable[[Mapping[str, Any]], Any], context: Mapping[str, Any] | None = None
    ) -> Any:
        answer = self._wait(self._job.ask("effect", {"action": action, "arguments": arguments, "context": context}))
        if answer["done"]:
            return answer["outcome"]
        outcome = run(answer["arguments"])
        self._wait(self._job.ask("finish", {"approval": answer["approval"], "outcome": outcome}))
        return outcome

    async def _begin(self, name: str) -> bytes | None:
        done = self._job.finished(name)
        if done is None:
            await self._job.all_durable()
        return done

    async def _keep(self, name: str, value: object) -> Any:
        return self._job.keep(name, value)

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _forget(what: object) -> None:
    """Close a coroutine that is not needed, so that nothing warns about it."""
    close = getattr(what, "close", None)
    if close is not None:
        close()
