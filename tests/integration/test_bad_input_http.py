"""Bad input over real sockets: broken requests, oversize bodies, clients that leave. Always a clear error or a clean end, never a 5xx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from appliance.testing.fakes_chat_model import ScriptedAnswer
from tests.integration.conftest import SMALL
from tests.integration.gateway_bed import RunningBox, eventually

CHAT = "/v1/chat/completions"
TURN = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def client(box: RunningBox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=box.url, headers={"authorization": f"Bearer {box.admin_key}"}, timeout=10) as made:
        yield made


def check(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code", "hint"}
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b'{"model": "default", "messages": [', b"[" * 50_000, b"null"])
@pytest.mark.parametrize("path", [CHAT, "/api/search", "/api/threads", "/v1/embeddings", "/v1/rerank", "/api/auth/login"])
async def test_what_is_no_json_is_a_400(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    answer = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] in {"malformed_json", "invalid_request"}


@pytest.mark.parametrize("path", [CHAT, "/api/search", "/v1/embeddings"])
async def test_an_oversized_body_is_a_413_declared_or_not(client: httpx.AsyncClient, path: str) -> None:
    big = json.dumps({"x": "y" * (SMALL + 1)}).encode()
    check(await client.post(path, content=big, headers={"content-type": "application/json"}), 413, "too_large")

    async def undeclared() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 8192):
            yield big[start : start + 8192]

    check(await client.post(path, content=undeclared(), headers={"content-type": "application/json"}), 413, "too_large")


async def test_an_oversized_upload_is_a_413_and_its_neighbours_go_on(client: httpx.AsyncClient) -> None:
    big, small = ("file", ("big.txt", b"x" * (SMALL + 1))), ("file", ("small.txt", b"fine"))
    check(await client.post("/api/documents", files=[big]), 413, "too_large")
    check(await client.post("/v1/files", files=[big], data={"purpose": "assistants"}), 413, "too_large")
    answer = await client.post("/api/documents", files=[big, small])
    assert [(row["name"], row["outcome"]) for row in answer.json()["data"]] == [("big.txt", "refused"), ("small.txt", "created")]
    many = [("file", (f"{number}.txt", b"x" * (SMALL - 1))) for number in range(5)]
    check(await client.post("/api/documents", files=many), 413, "too_large")


async def test_an_unknown_type_is_a_415_and_an_empty_file_a_422(client: httpx.AsyncClient) -> None:
    check(await client.post("/api/documents", files={"file": ("a.exe", b"MZ")}), 415, "unsupported_type")
    check(await client.post("/api/documents", files={"file": ("a.txt", b"")}), 422, "document_empty")
    check(await client.post("/api/documents", content=b"hello", headers={"content-type": "text/plain"}), 415, "unsupported_type")
    check(await client.post("/api/documents", files={"other": ("a.txt", b"x")}), 400, "invalid_request")
    check(await client.post("/v1/files", files={"file": ("a.txt", b"x")}, data={"purpose": "fine-tune"}), 400, "invalid_request")


async def test_wrong_methods_and_addresses(client: httpx.AsyncClient) -> None:
    check(await client.get(CHAT), 405, "method_not_allowed")
    check(await client.put("/api/me"), 405, "method_not_allowed")
    check(await client.post("/healthz"), 405, "method_not_allowed")
    check(await client.get("/api/absent"), 404, "not_found")
    check(await client.get("/absent"), 404, "not_found")
    for path in ("/web/../settings.py", "/web/%2e%2e/settings.py", "/web//etc/passwd", "/../../etc/passwd"):
        assert (await client.get(path)).status_code == 404


async def test_queries_out_of_range_are_named(client: httpx.AsyncClient) -> None:
    for path, param in (
        ("/api/documents?limit=0", "limit"),
        ("/api/documents?status=odd", "status"),
        ("/api/documents?after=absent", "after"),
        ("/api/usage?days=0", "days"),
    ):
        answer = await client.get(path)
        check(answer, 400, "invalid_request")
        assert answer.json()["error"]["param"] == param


async def test_half_characters_and_nul_do_not_reach_the_database(client: httpx.AsyncClient) -> None:
    for title in ('"\\ud800"', '"\\u0000"'):
        answer = await client.post("/api/threads", content=b'{"title": %s}' % title.encode(), headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
    answer = await client.post(CHAT, content=b'{"model":"default","thread_id":"new","messages":[{"role":"user","content":"a\\u0000b"}]}')
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_model(box: RunningBox, client: httpx.AsyncClient, stream: bool) -> None:
    assert box.bed is not None
    model = box.bed.model
    model.cancelled.clear()
    model.answer = ScriptedAnswer(endless=True, pause_seconds=0.01)
    asked = len(model.requests)
    reader, writer = await asyncio.open_connection(*box.url.removeprefix("http://").split(":"))
    body = json.dumps(TURN | {"stream": stream}).encode()
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: box\r\nauthorization: Bearer {box.admin_key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    if stream:
        await reader.readuntil(b"data: ")
    else:
        await eventually(lambda: len(model.requests) > asked)
    writer.close()
    await eventually(model.cancelled.is_set)
    model.answer = ScriptedAnswer()
    assert (await client.post(CHAT, json=TURN)).status_code == 200
    metrics = (await client.get("/metrics")).text
    assert "active_sessions 0.0" in metrics


async def test_an_upload_that_breaks_off_leaves_nothing(box: RunningBox, client: httpx.AsyncClient) -> None:
    before = (await client.get("/api/documents")).json()["data"]
    _, writer = await asyncio.open_connection(*box.url.removeprefix("http://").split(":"))
    head = f"POST /api/documents HTTP/1.1\r\nhost: box\r\nauthorization: Bearer {box.admin_key}\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 100000\r\n\r\n"
    writer.write(head.encode() + b'--B\r\nContent-Disposition: form-data; name="file"; filename="half.txt"\r\n\r\nhalf of it')
    await writer.drain()
    writer.close()
    await asyncio.sleep(0)
    assert (await client.get("/api/documents")).json()["data"] == before


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_broken_http_never_brings_the_server_down(box: RunningBox, client: httpx.AsyncClient, request_bytes: bytes) -> None:
    reader, writer = await asyncio.open_connection(*box.url.removeprefix("http://").split(":"))
    writer.write(request_bytes)
    with_answer = b""
    try:
        async with asyncio.timeout(2):
            with_answer = await reader.read(1024)
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    assert b" 500 " not in with_answer[:20]
    assert (await client.get("/healthz")).status_code == 200
