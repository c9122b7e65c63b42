"""The HTTP calls of the fake box. See ``fake_box``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.e2e import scripted
from tests.e2e.fake_chat import ChatSocket
from tests.e2e.fake_state import MAX_UPLOAD_BYTES, PASSWORD, USERNAME, FakeBox, Json, error

WEB: Final = Path(__file__).parents[2] / "services" / "gateway" / "web"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


class Gate:
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


class Rest:
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
        self._box._sockets.add(socket)
        try:
            await ChatSocket(self._box, socket).serve()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self._box._sockets.discard(socket)


def _public(document: Json) -> Json:
    return {name: value for name, value in document.items() if name not in {"text", "page_spans"}}
