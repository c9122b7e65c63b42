"""Chat model over llama.cpp in a process of our own: any GGUF of the hub.

Owns: the way of one request to that process over its unix socket, its place in the queue, its deadline. Does not own: the process (``llama_engine``),
grammars and calls (``llama_request``). One read of the socket becomes one ``Tokens`` event with every piece that arrived in it. Closing the generator closes
the connection, upon which llama.cpp stops generating and frees the slot, even in the middle of a long prompt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, ModelEvent, Tokens, ToolCalls, Usage
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelTrust
from appliance.hub.roots import Roots
from appliance.kit.errors import ApplianceError
from services.llm import openai_wire as wire
from services.llm.llama.llama_engine import LlamaEngine
from services.llm.llama.llama_process import LlamaProcess
from services.llm.llama.llama_request import Asked, asked
from services.llm.settings import LlmSettings

_WAITING_PER_SLOT: Final = 64
_NOTICE_SECONDS: Final = 2.0
_MAX_ERROR_BYTES: Final = 64 * 1024
_URL: Final = "http://llama/v1/chat/completions"
_HEALTH_URL: Final = "http://llama/health"
_HEADERS: Final = {"content-type": "application/json", "accept-encoding": "identity"}
_DEADLINE_HINT: Final = "ask for less (max_tokens), or give the model more threads"


class LlamaChatModel:
    """Satisfies ``ChatModel``; made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, alias: str, engine: LlamaEngine, settings: LlmSettings) -> None:
        self._alias = alias
        self._engine = engine
        self._settings = settings
        self._slots = asyncio.Semaphore(engine.plan.parallel)
        self._most_waiting = _WAITING_PER_SLOT * engine.plan.parallel
        self._waiting = 0
        self._session: tuple[LlamaProcess, aiohttp.ClientSession] | None = None
        # a template that never mentions tools has no words for them
        self.capabilities = Capabilities(tools="tools" in engine.chat_template, schema="grammar", max_context=engine.plan.context)

    @classmethod
    async def open(cls, spec: ModelSpec, hub: Roots, trust: ModelTrust, settings: LlmSettings) -> LlamaChatModel:
        """Begin to serve the model of ``spec``; loading goes on in the background.

        Raises:
            ApplianceError: as ``LlamaEngine.open``.
        """
        return cls(spec.alias, await LlamaEngine.open(spec, hub, trust), settings)

    @property
    def pid(self) -> int | None:
        """Process id of the engine while it serves; for tests and metrics."""
        process = self._engine.peek()
        return process.pid if process is not None else None

    async def close(self) -> None:
        """End the process."""
        if self._session is not None:
            await self._session[1].close()
        await self._engine.close()

    async def health(self) -> None:
        """See ``ChatModel.health``: asks the process; after it was given up, has it tried again."""
        problem = self._engine.problem
        self._engine.try_again()
        if problem is not None:
            raise problem
        process = self._engine.peek()
        if process is None:
            raise ApplianceError("unavailable", f"model {self._alias!r} is being loaded", hint="wait; large files take minutes on slow disks")
        try:
            async with asyncio.timeout(self._settings.health_timeout_seconds), (await self._connected(process)).get(_HEALTH_URL) as response:
                if response.status != 200:
                    raise wire.upstream_error(response.status, b"")
        except TimeoutError as exc:
            raise ApplianceError("upstream_timeout", f"the process of model {self._alias!r} does not reply", hint="see the log") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise self._lost() from exc

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ``ChatModel.stream``. Also ``schema_unsupported`` before anything is generated, ``overloaded`` when too many wait."""
        question = asked(request, self._engine.chat_template)
        limit = time.monotonic() + self._settings.total_timeout_seconds
        ends_at = min(limit, request.deadline) if request.deadline is not None else limit
        async with self._slot(ends_at):
            response = await self._asked(question, ends_at)
            try:
                try:
                    async for event in self._events(response, question, ends_at):
                        yield event
                finally:
                    response.close() if not response.content.at_eof() else response.release()
            except (aiohttp.ClientError, OSError) as exc:
                raise self._lost() from exc

    @asynccontextmanager
    async def _slot(self, ends_at: float) -> AsyncIterator[None]:
        if self._waiting >= self._most_waiting:
            raise ApplianceError("overloaded", f"too many requests wait for model {self._alias!r}", hint="try again in a moment")
        self._waiting += 1
        try:
            async with _until(ends_at):
                await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    async def _connected(self, process: LlamaProcess) -> aiohttp.ClientSession:
        """A session with this process; that with its predecessor is closed."""
        held = self._session
        if held is not None and held[0] is process:
            return held[1]
        session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(process.socket, limit=0, force_close=True),  # the server closes after each answer
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )  # fmt: skip
        self._session = (process, session)
        if held is not None:
            await held[1].close()
        return session

    async def _asked(self, question: Asked, ends_at: float) -> aiohttp.ClientResponse:
        """The response up to its headers. Where the process had died, its successor is asked: nothing was generated yet."""
        for last in (False, True):
            async with _until(ends_at):
                process = await self._engine.serving()
            try:
                return await self._post(process, question, ends_at)
            except (aiohttp.ClientError, OSError) as exc:
                if last or not await _ended(process):
                    raise self._lost() from exc
        raise AssertionError

    async def _post(self, process: LlamaProcess, question: Asked, ends_at: float) -> aiohttp.ClientResponse:
        began = time.monotonic()
        try:
            async with _until(ends_at):
                response = await (await self._connected(process)).post(_URL, data=question.body, headers=_HEADERS)
        except ApplianceError:
            self._engine.left_waiting(process, time.monotonic() - began)
            raise
        process.silent = 0
        if response.status == 200:
            return response
        async with _until(ends_at):
            body = await response.content.read(_MAX_ERROR_BYTES)
            response.close()
        if b"exceed_context_size" in body:
            raise ApplianceError(
                "context_length_exceeded", f"the conversation is longer than the {self._engine.plan.context} tokens of model {self._alias!r}",
                hint="shorten it, ask with fewer sources, or raise max_context in models.toml",
            )  # fmt: skip
        raise wire.upstream_error(response.status, body)

    async def _events(self, response: aiohttp.ClientResponse, question: Asked, ends_at: float) -> AsyncIterator[ModelEvent]:
        reader = wire.EventReader(self._settings.max_line_bytes)
        reason, usage, seen, written = "", Usage(), 0, bytearray()
        while not reader.done:
            async with _until(ends_at):
                received = await response.content.readany()
            pieces: list[str] = []
            for chunk in reader.feed(received) if received else reader.end():
                if chunk.failed:
                    raise wire.midway_error(chunk.error)
                usage = wire.counted(chunk.usage) or usage
                for choice in chunk.choices:
                    if choice.delta is not None and choice.delta.content:
                        pieces.append(choice.delta.content)
                    reason = wire.finish_reason(choice.finish_reason) or reason
            seen += len(received)
            if seen > self._settings.max_answer_bytes:
                raise wire.garbage("an endless answer")
            if question.is_json:
                written += "".join(pieces).encode()
            shown = question.calls.feed(pieces) if question.calls is not None else pieces
            if shown:
                yield Tokens(tuple(shown))
            if not received:
                break
        if not reason:
            raise self._lost()
        if question.is_json and reason == "stop":
            _check_json(bytes(written))
        if question.calls is not None:
            text, calls = question.calls.end(complete=reason == "stop")
            if text:
                yield Tokens((text,))
            if calls:
                yield ToolCalls(calls)
                reason = "tool_calls" if reason == "stop" else reason
        yield Finish(reason, usage)

    def _lost(self) -> ApplianceError:
        hint = "ask again: the process is started anew; see the log for `llama_process_lost`"
        return ApplianceError("upstream_failed", f"the process of model {self._alias!r} ended while it answered", hint=hint)


async def _ended(process: LlamaProcess) -> bool:
    """Whether the process is gone, or goes within the moment that its end takes to be noticed."""
    try:
        async with asyncio.timeout(_NOTICE_SECONDS):
            await process.gone.wait()
    except TimeoutError:
        return False
    return True


def _check_json(written: bytes) -> None:
    """A grammar that the engine dropped shows here at the latest."""
    try:
        msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApplianceError(
            "schema_unsatisfied", "the engine did not keep the grammar of the answer", hint="report it; ask without a schema"
        ) from exc


@asynccontextmanager
async def _until(ends_at: float) -> AsyncIterator[None]:
    """Time is up at ``ends_at`` (``time.monotonic()``)."""
    try:
        async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
            yield
    except TimeoutError as exc:
        raise ApplianceError("upstream_timeout", "the model was not done in time", hint=_DEADLINE_HINT) from exc
