"""A test double of the box: docs/api.md with scripted data in memory, for the tests of the first page.

Owns what the page may meet: streams, citations, refusals, upload errors, expired tokens, lost sockets, hostile answers.
Not a model of the box's behaviour beyond that; nothing else may import it. Run by hand for a look at the page:
``python -m tests.e2e.fake_box``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.e2e import scripted

WEB: Final = Path(__file__).parents[2] / "services" / "gateway" / "web"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
USERNAME, PASSWORD = "anna", "correct horse battery staple"
MAX_UPLOAD_BYTES: Final = 200_000
Json = dict[str, Any]


@dataclass
class FakeBox:
    """The state of one fake box, open to the tests.

    Attributes:
        token_delay_seconds: pause between streamed tokens.
        connected: False = every request and socket is cut, as by a pulled cable.
        requests: ``METHOD path`` of every request, for assertions.
        asked: every ``ask`` message as it came.
    """

    token_delay_seconds: float = 0.01
    connected: bool = True
    requests: list[str] = field(default_factory=list)
    asked: list[Json] = field(default_factory=list)
    spaces: list[Json] = field(default_factory=scripted.spaces)
    documents: dict[str, Json] = field(default_factory=scripted.documents)
    threads: dict[str, Json] = field(default_factory=scripted.threads)
    url: str = ""
    _access: set[str] = field(default_factory=set)
    _refresh: set[str] = field(default_factory=set)
    _serial: Iterator[int] = field(default_factory=itertools.count)
    _sockets: set[WebSocket] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    # -- what tests do to it --

    def expire_access_tokens(self) -> None:
        """As after fifteen minutes: the refresh token still works."""
        self._access.clear()

    def end_sessions(self) -> None:
        """As after a password change: nobody's tokens work."""
        self._access.clear()
        self._refresh.clear()

    def drop_sockets(self) -> None:
        """Close every WebSocket from the side of the box, without a goodbye."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(5)

    def pull_cable(self) -> None:
        """Nothing gets through until :meth:`plug_in`."""
        self.connected = False
        self.drop_sockets()

    def plug_in(self) -> None:
        """Undo :meth:`pull_cable`."""
        self.connected = True

    async def _drop(self) -> None:
        for socket in list(self._sockets):
            with contextlib.suppress(RuntimeError):
                await socket.close(1012)

    # -- tokens --

    def issue(self) -> Json:
        """A new pair."""
        number = next(self._serial)
        access, refresh = f"access-{number}", f"refresh-{number}"
        self._access.add(access)
        self._refresh.add(refresh)
        return {"access_token": access, "refresh_token": refresh, "token_type": "bearer", "expires_in": 900}

    def spend(self, refresh: str) -> bool:
        """Whether ``refresh`` was good; it is not any more."""
        good = refresh in self._refresh
        self._refresh.discard(refresh)
        return good

    def knows(self, access: str) -> bool:
        """Whether the access token is good."""
        return access in self._access

    def uploaded(self) -> list[Json]:
        """Documents that were added while the box ran."""
        return [one for one in self.documents.values() if one["id"] not in scripted.KNOWN]

    def next_id(self, prefix: str) -> str:
        """A fresh id."""
        return f"{prefix}_{next(self._serial)}"


def error(status: int, code: str, message: str, hint: str = "") -> JSONResponse:
    """The error shape of the API."""
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code, "hint": hint}
    return JSONResponse({"error": body}, status, {"x-request-id": "req-1"})


def build_app(box: FakeBox) -> ASGIApp:
    """The ASGI application over ``box``."""
    rest = _Rest(box)
    app = Starlette(
        routes=[
            Route("/", rest.file),
            Route("/web/{path:path}", rest.file),
            Route("/healthz", rest.health),
            Route("/api/auth/login", rest.login, methods=["POST"]),
            Route("/api/auth/refresh", rest.refresh, methods=["POST"]),
            Route("/api/auth/logout", rest.logout, methods=["POST"]),
            Route("/api/me", rest.me),
            Route("/api/spaces", rest.list_spaces),
            Route("/api/documents", rest.list_documents),
            Route("/api/documents", rest.upload, methods=["POST"]),
            Route("/api/documents/{id}", rest.document),
            Route("/api/documents/{id}", rest.delete_document, methods=["DELETE"]),
            Route("/api/documents/{id}/events", rest.events),
            Route("/api/documents/{id}/text", rest.text),
            Route("/api/documents/{id}/original", rest.original),
            Route("/api/threads", rest.list_threads),
            Route("/api/threads/{id}", rest.thread),
            Route("/api/threads/{id}", rest.change_thread, methods=["PATCH", "DELETE"]),
            WebSocketRoute("/ws/chat", rest.chat),
        ]
    )
    return _Gate(app, box)


class _Gate:
    """The cable and the door: cuts what must not get through, refuses what has no token."""

    def __init__(self, app: ASGIApp, box: FakeBox) -> None:
        self._app = app
        self._box = box

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if not self._box.connected:
            await self._cut(scope, send)
            return
        if scope["type"] == "http":
            self._box.requests.append(f"{scope['method']} {scope['path']}")
            if self._needs_token(scope["path"]) and not self._has_token(scope):
                await error(401, "unauthenticated", "the token is not valid")(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _cut(self, scope: Scope, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1001})
            return
        # a head without the body it promises: uvicorn drops the connection, the browser sees a network error
        cut: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]}
        await send(cut)
        raise ConnectionResetError

    @staticmethod
    def _needs_token(path: str) -> bool:
        return path.startswith("/api/") and not path.startswith("/api/auth/")

    def _has_token(self, scope: Scope) -> bool:
        header: bytes = dict(scope["headers"]).get(b"authorization", b"")
        return self._box.knows(header.decode().removeprefix("Bearer "))


class _Rest:
    """Handlers, one a call of the API."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    async def file(self, request: Request) -> Response:
        path = (WEB / request.path_params.get("path", "index.html")).resolve()
        if not path.is_relative_to(WEB) or not path.is_file():
            return error(404, "not_found", "no such page")
        return FileResponse(path, headers={"content-security-policy": POLICY, "cache-control": "no-cache"})

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def login(self, request: Request) -> Response:
        body = await request.json()
        if (body["username"], body["password"]) != (USERNAME, PASSWORD):
            return error(401, "unauthenticated", "wrong user name or password")
        return JSONResponse(self._box.issue())

    async def refresh(self, request: Request) -> Response:
        if not self._box.spend((await request.json())["refresh_token"]):
            return error(401, "unauthenticated", "the refresh token is not valid")
        return JSONResponse(self._box.issue())

    async def logout(self, request: Request) -> Response:
        self._box.spend((await request.json())["refresh_token"])
        return Response(status_code=204)

    async def me(self, _request: Request) -> Response:
        roles = {space["name"]: space["role"] for space in self._box.spaces}
        return JSONResponse({"subject": f"user:{USERNAME}", "kind": "user", "roles": ["member"], "spaces": roles})

    async def list_spaces(self, _request: Request) -> Response:
        owned = [document["space"] for document in self._box.documents.values()]
        return JSONResponse({"data": [{**space, "documents": owned.count(space["name"])} for space in self._box.spaces]})

    async def list_documents(self, request: Request) -> Response:
        wanted = request.query_params
        found = [
            document
            for document in sorted(self._box.documents.values(), key=lambda one: -one["created_at"])
            if wanted.get("space") in (None, document["space"]) and wanted.get("name") in (None, document["name"])
        ]
        return JSONResponse({"data": [_public(document) for document in found], "has_more": False})

    async def upload(self, request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert not isinstance(file, str)
            name, content = file.filename or "", await file.read()
        if len(content) > MAX_UPLOAD_BYTES:
            return error(413, "too_large", f"{name} is larger than {MAX_UPLOAD_BYTES} bytes", "split it")
        if name.endswith(".exe"):
            return error(415, "unsupported_type", f"{name} is of no known type", "see docs")
        document = scripted.document(self._box.next_id("doc"), name, request.query_params["space"], size=len(content))
        document.update(status="queued", chunks=0, text=content.decode("utf-8", "replace"))
        self._box.documents[document["id"]] = document
        return JSONResponse({"data": [{"name": name, "document": _public(document), "outcome": "created", "error": None}]}, 202)

    def _find(self, request: Request) -> Json | None:
        return self._box.documents.get(request.path_params["id"])

    async def document(self, request: Request) -> Response:
        found = self._find(request)
        return JSONResponse(_public(found)) if found else error(404, "not_found", "document not found")

    async def delete_document(self, request: Request) -> Response:
        if self._find(request) is None:
            return error(404, "not_found", "document not found")
        del self._box.documents[request.path_params["id"]]
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return error(404, "not_found", "document not found")
        return StreamingResponse(self._progress(found), media_type="text/event-stream")

    async def _progress(self, document: Json) -> AsyncIterator[bytes]:
        corrupt = "corrupt" in document["name"]
        for status, done in (("parsing", 1), ("parsing", 2), ("indexing", 3), ("failed" if corrupt else "ready", 3)):
            await asyncio.sleep(0.05)
            document.update(status=status, pages=3)
            if status == "failed":
                document["error"] = {"code": "document_corrupt", "message": "the file is damaged", "hint": "save it again"}
            step = {"status": status, "pages_done": done, "pages": 3, "chunks": 4, "embedded_chunks": 0}
            yield f"event: progress\ndata: {json.dumps(step)}\n\n".encode()

    async def text(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return error(404, "not_found", "document not found")
        text: str = found["text"]
        start = min(int(request.query_params.get("start", 0)), len(text))
        end = min(int(request.query_params.get("end", len(text))), len(text))
        pages = [page for page in found["page_spans"] if page["end"] > start and page["start"] < end]
        body = {"document": _public(found), "text": text[start:end], "start": start, "end": end, "length": len(text), "pages": pages}
        return JSONResponse(body)

    async def original(self, request: Request) -> Response:
        found = self._find(request)
        if found is None:
            return error(404, "not_found", "document not found")
        return Response(found["text"].encode(), media_type="application/octet-stream")

    async def list_threads(self, _request: Request) -> Response:
        listed = [{name: value for name, value in thread.items() if name != "messages"} for thread in self._box.threads.values()]
        return JSONResponse({"data": listed})

    async def thread(self, request: Request) -> Response:
        found = self._box.threads.get(request.path_params["id"])
        return JSONResponse(found) if found else error(404, "not_found", "thread not found")

    async def change_thread(self, request: Request) -> Response:
        found = self._box.threads.get(request.path_params["id"])
        if found is None:
            return error(404, "not_found", "thread not found")
        if request.method == "DELETE":
            del self._box.threads[found["id"]]
            return Response(status_code=204)
        found["title"] = (await request.json())["title"]
        return JSONResponse(found)

    async def chat(self, socket: WebSocket) -> None:
        await socket.accept()
        self._box._sockets.add(socket)  # noqa: SLF001 - one module
        try:
            await _Chat(self._box, socket).serve()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self._box._sockets.discard(socket)  # noqa: SLF001


class _Chat:
    """One socket."""

    def __init__(self, box: FakeBox, socket: WebSocket) -> None:
        self._box = box
        self._socket = socket
        self._turn: asyncio.Task[None] | None = None
        self._token = ""

    async def serve(self) -> None:
        self._token = (await self._socket.receive_json())["token"]
        if not self._box.knows(self._token):
            await self._error(None, "unauthenticated", "the token is not valid")
            await self._socket.close(4401)
            return
        await self._socket.send_json({"type": "ready", "subject": f"user:{USERNAME}"})
        try:
            while True:
                message = await self._socket.receive_json()
                if message["type"] == "ask":
                    self._turn = asyncio.create_task(self._answer(message))
                elif self._turn and not self._turn.done():
                    self._turn.cancel()
                    await self._error(message["id"], "cancelled", "the turn was cancelled")
        finally:
            if self._turn:
                self._turn.cancel()

    async def _error(self, asked: str | None, code: str, message: str) -> None:
        body = {"message": message, "type": "server_error", "param": None, "code": code, "hint": ""}
        await self._socket.send_json({"type": "error", "id": asked, "error": body})

    async def _answer(self, ask: Json) -> None:
        self._box.asked.append(ask)
        if not self._box.knows(self._token):
            await self._error(ask["id"], "unauthenticated", "the token has expired")
            return
        answer = scripted.answer_from(self._box.uploaded(), ask["text"]) or scripted.answer_to(ask["text"])
        if answer.error is not None:
            await self._error(ask["id"], answer.error, "the model did not answer")
            return
        send = self._socket.send_json
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await send(
                {
                    "type": "step",
                    "id": ask["id"],
                    "name": "search",
                    "detail": {"passages": answer.passages, "documents": [], "language": "en", "degraded": []},
                }
            )
            for piece in answer.pieces():
                await send({"type": "token", "id": ask["id"], "text": piece})
                await asyncio.sleep(self._box.token_delay_seconds)
            for citation in answer.citations:
                await send({"type": "citation", "id": ask["id"], **citation})
            usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
            thread_id = self._store(ask, answer)
            await send(
                {
                    "type": "done",
                    "id": ask["id"],
                    "finish_reason": "stop",
                    "usage": usage,
                    "model": "default",
                    "refused": answer.refused,
                    "thread_id": thread_id,
                }
            )

    def _store(self, ask: Json, answer: scripted.Answer) -> str:
        thread_id = ask.get("thread_id")
        if thread_id in (None, "new"):
            thread_id = self._box.next_id("thread")
            self._box.threads[thread_id] = scripted.thread(thread_id, ask["text"][:60], spaces=ask.get("spaces"))
        thread = self._box.threads[thread_id]
        thread["updated_at"] = time.time()
        for role, content, citations in (("user", ask["text"], []), ("assistant", answer.text, list(answer.citations))):
            message = {
                "id": self._box.next_id("message"),
                "role": role,
                "content": content,
                "citations": citations,
                "model": "default",
                "created_at": time.time(),
            }
            thread["messages"].append(message)
        return str(thread_id)


def _public(document: Json) -> Json:
    return {name: value for name, value in document.items() if name not in {"text", "page_spans"}}


@contextlib.contextmanager
def served(box: FakeBox, port: int = 0) -> Iterator[FakeBox]:
    """``box`` on a loopback port in a thread of its own; ``box.url`` is its address."""

    config = uvicorn.Config(build_app(box), host="127.0.0.1", port=port, log_level="critical", ws="websockets-sansio", lifespan="off")
    server = uvicorn.Server(config)
    started = threading.Event()

    async def run() -> None:
        box._loop = asyncio.get_running_loop()  # noqa: SLF001
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(10)
    box.url = "http://127.0.0.1:%d" % server.servers[0].sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(5)


if __name__ == "__main__":
    with served(FakeBox(token_delay_seconds=0.04), port=8123) as shown:
        print(f"{shown.url}  {USERNAME} / {PASSWORD}")  # noqa: T201 - for people
        threading.Event().wait()
