"""A chat model server on loopback that does what it is told, also what no honest server does. Real sockets, plain bytes, no framework.

    async with ScriptedOpenAi(Script(pieces=("Hel", "lo"))) as upstream:
        OpenAiEndpoint(upstream.url, "m")

``upstream.script`` may be replaced between requests, ``upstream.upcoming`` holds scripts for the next ones; ``upstream.requests`` keeps the bodies, ``upstream.departures`` counts clients that left early.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

Mode = Literal[
    "honest",
    "hang",  # takes the request, never answers
    "stall",  # the first piece, then silence
    "reset",  # the first piece, then the connection breaks
    "garbage",  # an event that is no JSON
    "wrong_type",  # an HTML page with status 200
    "invalid_utf8",
    "endless_line",
    "wrong_length",  # content-length larger than the body
    "error_status",  # ``status`` with an OpenAI error
    "error_midway",  # an error event after the first piece
    "no_finish",  # ends without finish_reason
    "slow",  # a piece every ``delay_seconds``
    "byte_by_byte",  # every byte in a packet of its own
    "crlf",  # events separated as some proxies do
    "refuse",  # takes the request and closes without a byte
    "short_length",  # content-length smaller than the body
]


@dataclass(frozen=True, slots=True)
class Script:
    """What to answer; ``usage`` is (prompt, completion) or None to leave it out; ``endless`` never stops repeating a piece.

    ``calls``: entries of ``delta.tool_calls``, an event each, or of ``message.tool_calls``; ``retry_after``: header of an error; ``cached``: tokens in usage.
    """

    pieces: tuple[str, ...] = ("Hello", " world")
    mode: Mode = "honest"
    finish_reason: str = "stop"
    usage: tuple[int, int] | None = (7, 2)
    status: int = 500
    error: dict[str, object] | None = None
    delay_seconds: float = 0.0
    endless: bool = False
    calls: tuple[Mapping[str, object], ...] = ()
    retry_after: str | None = None
    cached: int = 0


class ScriptedOpenAi:
    """The server; use as ``async with``."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.requests: list[dict[str, object]] = []
        self.authorizations: list[str] = []
        self.connections = 0
        self.departures = 0
        self.departed = asyncio.Event()
        self.active = 0
        self.upcoming: deque[Script] = deque()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Base address, ``http://127.0.0.1:<port>/v1``."""
        if self._server is None:
            raise RuntimeError("not started")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        return self

    def die(self) -> None:
        """As a process that is killed: nobody listens, every connection breaks."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection lives on."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.authorizations.append(headers.get("authorization", ""))
        if lines[0].startswith("GET"):
            healthy = self.script.mode != "error_status"
            writer.write(_whole(200 if healthy else self.script.status, b'{"object":"list","data":[]}'))
            return True
        request = json.loads(body)
        self.requests.append(request)
        self.active += 1
        try:
            return await self._attended(request, reader, writer)
        finally:
            self.active -= 1

    async def _attended(self, request: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer, and notice a client that leaves."""
        watch = asyncio.create_task(reader.read(1))
        script = self.upcoming.popleft() if self.upcoming else self.script
        answer = asyncio.create_task(_answer(script, request, writer))
        done, _ = await asyncio.wait({watch, answer}, return_when=asyncio.FIRST_COMPLETED)
        if answer not in done:
            self.departures += 1
            self.departed.set()
            answer.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await answer
            return False
        watch.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await watch
        return answer.result()


async def _answer(script: Script, request: dict[str, object], writer: asyncio.StreamWriter) -> bool:
    if script.mode == "hang":
        await asyncio.Event().wait()
    if script.mode == "refuse":
        return False
    if script.mode == "error_status":
        body = json.dumps({"error": script.error or {"message": "scripted", "code": None}}).encode()
        writer.write(_whole(script.status, body, retry_after=script.retry_after))
        return True
    if script.mode == "wrong_type":
        writer.write(_whole(200, b"<html>welcome to the proxy</html>", "text/html"))
        return True
    if request.get("stream"):
        return await _stream(script, request, writer)
    return _unary(script, writer)


async def _stream(script: Script, request: dict[str, object], writer: asyncio.StreamWriter) -> bool:
    if script.mode in {"wrong_length", "short_length"}:
        data = b"".join(_events(script, include_usage=True))
        writer.write(_whole(200, data, "text/event-stream", len(data) + 100 if script.mode == "wrong_length" else len(data) // 2))
        return False
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
    options = request.get("stream_options")
    include_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    for number, event in enumerate(_events(script, include_usage=include_usage)):
        await _write(writer, event, one_by_one=script.mode == "byte_by_byte")
        if number == 1 and script.mode in {"stall", "reset"}:
            if script.mode == "stall":
                await asyncio.Event().wait()
            writer.transport.abort()
            return False
        if script.delay_seconds:
            await asyncio.sleep(script.delay_seconds)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _chunk(delta: dict[str, object], reason: str | None = None) -> dict[str, object]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


def _events(script: Script, *, include_usage: bool) -> Iterator[bytes]:
    end = b"\r\n\r\n" if script.mode == "crlf" else b"\n\n"

    def event(value: object) -> bytes:
        return b"data: " + json.dumps(value, ensure_ascii=script.mode == "crlf").encode() + end

    yield event(_chunk({"role": "assistant", "content": ""}))
    for number, piece in enumerate(script.pieces):
        yield event(_chunk({"content": piece}))
        if number == 0 and script.mode == "garbage":
            yield b"data: this is not json\n\n"
        if number == 0 and script.mode == "invalid_utf8":
            yield b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'
        if number == 0 and script.mode == "endless_line":
            for _ in range(64):
                yield b"x" * 65536
        if number == 0 and script.mode == "error_midway":
            yield event({"error": {"message": "out of memory", "code": 500}})
            return
    for call in script.calls:
        yield event(_chunk({"tool_calls": [call]}))
    while script.endless:
        yield event(_chunk({"content": "more "}))
    if script.mode == "no_finish":
        return
    yield event(_chunk({}, script.finish_reason))
    if include_usage and script.usage is not None:
        yield event({**_chunk({}), "choices": [], "usage": _usage(script)})
    yield b"data: [DONE]" + end


def _usage(script: Script) -> dict[str, object]:
    prompt, completion = script.usage or (0, 0)
    usage: dict[str, object] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**usage, "prompt_tokens_details": {"cached_tokens": script.cached}} if script.cached else usage


def _unary(script: Script, writer: asyncio.StreamWriter) -> bool:
    message: dict[str, object] = {"role": "assistant", "content": "".join(script.pieces)}
    if script.calls:
        message["tool_calls"] = list(script.calls)
    body: dict[str, object] = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": script.finish_reason}],
    }
    if script.usage is not None:
        body["usage"] = _usage(script)
    data = json.dumps(body).encode()
    if script.mode == "wrong_length":
        writer.write(_whole(200, data, length=len(data) + 100))
        return False
    if script.mode in {"garbage", "invalid_utf8"}:
        data = b'{"choices": [\xff'
    if script.mode == "reset":
        writer.transport.abort()
        return False
    writer.write(_whole(200, data))
    return True


def _whole(status: int, body: bytes, media_type: str = "application/json", length: int | None = None, *, retry_after: str | None = None) -> bytes:
    wait = f"retry-after: {retry_after}\r\n" if retry_after is not None else ""
    head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: {media_type}\r\n{wait}content-length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode("latin-1") + body


async def _write(writer: asyncio.StreamWriter, event: bytes, *, one_by_one: bool) -> None:
    parts = [bytes([byte]) for byte in event] if one_by_one else [event]
    for part in parts:
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
        if one_by_one:
            await asyncio.sleep(0)
