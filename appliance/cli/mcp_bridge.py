"""MCP on stdin and stdout, passed on to the box's ``/mcp`` over HTTP with a key. Owns: lines, streams, reconnects. Does not own: the protocol's meaning.

A line that comes in is one JSON-RPC message and one POST; whatever comes back, one line each. A call whose connection breaks is sent again: reports
carry fencing tokens, and ``request_approval`` finds its standing question, so nothing happens twice. ``claim_task`` is the exception: a second one would
take a second task, and the next one names what is held already. Nothing of the ``mcp`` package is needed, so the bridge starts at once.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final

import httpx

VERSION_META: Final = "io.modelcontextprotocol/protocolVersion"
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
_AT_ONCE: Final = 64
_QUEUED_LINES: Final = 256
_GRACE_SECONDS: Final = 10.0
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_NOT_AGAIN: Final = frozenset({"claim_task"})
_CALL_PATIENCE_SECONDS: Final = 60.0  # a box that starts again; clients wait about as long
_PATIENCE_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 2.0
_INTERNAL: Final = -32603
_PARSE: Final = -32700
Message = dict[str, Any]


class Bridge:
    """``await Bridge(http, path).run(stdin, stdout)`` ends when stdin does."""

    def __init__(self, http: httpx.AsyncClient, path: str = "/mcp") -> None:
        self._http = http
        self._path = path
        self._version: str | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._out: BinaryIO = sys.stdout.buffer

    async def run(self, source: BinaryIO, out: BinaryIO) -> None:
        """Pass messages on until ``source`` ends; then those in flight have a few seconds left."""
        self._out = out
        lines = _lines(source)
        while (line := await lines.get()) is not None:
            await self._take(line)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._say(_error(None, _PARSE, "not a JSON-RPC message", "one JSON object a line"))
            return
        if message.get("method") == "notifications/cancelled":
            self._cancel(message)
            return
        await self._at_once.acquire()
        task = asyncio.create_task(self._pass_on(message))
        self._tasks.add(task)
        if "id" in message:
            self._running[_key(message["id"])] = task
        task.add_done_callback(lambda done: self._done(done, message))
        if message.get("method") == "initialize":  # the version that it settles goes with every later message
            await asyncio.wait({task})

    def _cancel(self, message: Message) -> None:
        """Closing the stream is how the box is told."""
        parameters = message.get("params")
        task = self._running.get(_key(parameters.get("requestId"))) if isinstance(parameters, dict) else None
        if task is not None:
            task.cancel()

    def _done(self, task: asyncio.Task[None], message: Message) -> None:
        self._at_once.release()
        self._tasks.discard(task)
        if self._running.get(key := _key(message.get("id"))) is task:
            del self._running[key]

    async def _pass_on(self, message: Message) -> None:
        pause = _FIRST_PAUSE_SECONDS
        until = time.monotonic() + (_CALL_PATIENCE_SECONDS if message.get("method") == "tools/call" else _PATIENCE_SECONDS)
        while True:
            try:
                await self._post(message)
                return
            except httpx.TransportError as error:
                is_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                if time.monotonic() + pause > until or (is_sent and not _may_repeat(message)):
                    self._fail(message, f"the box cannot be reached: {type(error).__name__}", "see: appliance status; then call again")
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _post(self, message: Message) -> None:
        headers = {"accept": "application/json, text/event-stream", **self._headers(message)}
        async with self._http.stream("POST", self._path, json=message, headers=headers) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                await self._events(message, response)
                return
            body = await response.aread()
        if "id" not in message:
            return
        try:
            self._answer(message, json.loads(body))
        except (ValueError, TypeError):
            text = body[:200].decode(errors="replace")
            self._fail(message, f"the box answered {response.status_code}: {text}", "is the address that of the box, and has it a Host it accepts?")

    async def _events(self, message: Message, response: httpx.Response) -> None:
        is_answered = "id" not in message
        async for line in response.aiter_lines():
            if line.startswith("data:") and (data := line[5:].strip()):
                self._answer(message, event := json.loads(data))
                is_answered |= "method" not in event
        if not is_answered:
            raise httpx.RemoteProtocolError("the stream ended before its answer")

    def _answer(self, request: Message, answer: Message) -> None:
        if not isinstance(answer, dict):
            raise TypeError
        if "method" not in answer and answer.get("id") is None:  # refused before its id was read
            answer = {**answer, "id": request.get("id")}
        if request.get("method") == "initialize" and isinstance(result := answer.get("result"), dict):
            self._version = result.get("protocolVersion")
        self._say(answer)

    def _headers(self, message: Message) -> Mapping[str, str]:
        """The headers in which the transport repeats what the message says (from revision 2026-07-28 on), or the version agreed on before."""
        parameters = message.get("params")
        meta = parameters.get("_meta") if isinstance(parameters, dict) else None
        version = meta.get(VERSION_META) if isinstance(meta, dict) else None
        if not isinstance(version, str):
            return {"mcp-protocol-version": self._version} if self._version and message.get("method") != "initialize" else {}
        headers = {"mcp-protocol-version": version, "mcp-method": str(message.get("method"))}
        name = parameters.get(_NAMED_BY.get(headers["mcp-method"], "")) if isinstance(parameters, dict) else None
        if isinstance(name, str):
            headers["mcp-name"] = _header_value(name)
        return headers

    def _fail(self, message: Message, text: str, hint: str) -> None:
        if "id" in message:
            self._say(_error(message["id"], _INTERNAL, text, hint))
        else:
            print(f"error: {text}", file=sys.stderr)

    def _say(self, message: Message) -> None:
        """One whole line; the client reads as long as it wants answers."""
        self._out.write(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._out.flush()


def _lines(source: BinaryIO) -> asyncio.Queue[bytes | None]:
    """Lines as they come, None at the end. A thread of its own, since a pipe, a file and a terminal are all read alike by one; it ends with the process."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED_LINES)

    def read() -> None:
        with suppress(RuntimeError):  # the loop has ended
            while line := source.readline(MAX_LINE_BYTES):
                if line.strip():
                    asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(lines.put(None), loop)

    threading.Thread(target=read, name="mcp-stdin", daemon=True).start()
    return lines


def _may_repeat(message: Message) -> bool:
    parameters = message.get("params")
    name = parameters.get("name") if isinstance(parameters, dict) else None
    return not (message.get("method") == "tools/call" and name in _NOT_AGAIN)


def _error(request_id: object, code: int, text: str, hint: str) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text, "data": {"hint": hint}}}


def _key(request_id: object) -> str:
    return json.dumps(request_id)


def _header_value(text: str) -> str:
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
