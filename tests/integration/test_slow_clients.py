"""Clients that send too slowly or too much of a head, against the real server with short deadlines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.gateway.asgi import Receive, Scope, Send
from services.gateway.http_protocol import Deadlines
from services.gateway.server import listen, make_server

HEAD = b"POST /%s HTTP/1.1\r\nhost: box\r\ncontent-length: %d\r\n\r\n"


class Echo:
    """Answers with the length of the body; ``/early`` before it has come, ``/busy`` after two seconds."""

    def __init__(self) -> None:
        self.left = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for answer in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                await receive()
                await send({"type": answer})
            return
        size = 0
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            size += len(message["body"])
            if not message.get("more_body"):
                break
        if scope["path"] == "/busy":
            await asyncio.sleep(2)
        body = str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(deadlines: Deadlines = Deadlines()) -> AsyncIterator[tuple[Echo, int]]:  # noqa: B008 - frozen
    echo = Echo()
    server = make_server(echo, deadlines=deadlines)
    listening = listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listening]))
        try:
            yield echo, listening.getsockname()[1]
        finally:
            server.should_exit = True


async def exchange(port: int, *parts: bytes, pause_seconds: float = 0.0) -> bytes:
    """What the server says until it closes, to ``parts`` sent with pauses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = asyncio.create_task(reader.read())
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_seconds)
            if heard.done():
                break
        async with asyncio.timeout(5):
            return await heard
    except ConnectionError:
        return b""
    finally:
        heard.cancel()
        writer.close()


@pytest.mark.parametrize("said", [b"", b"\r\n", b"GET / HTTP/1.1\r\nhost: b"])
async def test_a_head_that_never_ends_ends_the_connection(said: bytes) -> None:
    async with serving(Deadlines(head_seconds=1)) as (_, port):
        assert await exchange(port, said) == b""


@pytest.mark.parametrize("path", [b"read", b"early"])
async def test_a_body_that_stops_is_given_up(path: bytes) -> None:
    async with serving(Deadlines(body_seconds=1)) as (echo, port):
        answer = await exchange(port, HEAD % (path, 1000) + b"x" * 10)
        if path == b"read":
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400")
            assert json.loads(body)["error"]["code"] == "invalid_request"
            assert echo.left == 1


async def test_a_body_that_trickles_is_given_up_and_one_that_flows_is_not() -> None:
    async with serving(Deadlines(body_seconds=1, body_bytes=1000)) as (echo, port):
        answer = await exchange(port, HEAD % (b"read", 1000), *[b"x"] * 40, pause_seconds=0.1)
        assert answer == b"" or b" 400 " in answer  # what was still on its way may break the connection before the answer is read
        assert echo.left == 1
        end = b"GET / HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n"
        flowing = await exchange(port, HEAD % (b"read", 20_000), *[b"x" * 500] * 40, end, pause_seconds=0.1)
        assert flowing.startswith(b"HTTP/1.1 200")
        assert b"\r\n20000" in flowing


async def test_an_answer_that_takes_its_time_is_no_slow_client() -> None:
    async with serving(Deadlines(head_seconds=1, body_seconds=1)) as (_, port):
        request = b"GET /busy HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n"
        assert (await exchange(port, request)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("step", [300_000, 20_000])
async def test_a_long_head_is_refused_and_a_long_body_is_not(step: int) -> None:
    async with serving() as (_, port):
        for long in (
            b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"x: yyyyyyyyyyyyyyyyyy\r\n" * 5000 + b"\r\n",
            b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        ):
            answer = await exchange(port, *[long[start : start + step] for start in range(0, len(long), step)], pause_seconds=0.01)
            assert answer == b"" or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), answer[:100]
        closing = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 250000\r\n\r\n" + b"x" * 250_000
        answer = await exchange(port, *[closing[start : start + step] for start in range(0, len(closing), step)])
        assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
