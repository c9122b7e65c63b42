"""A test double of the box: docs/api.md with scripted data in memory, for the tests of the first page.

Owns what the page may meet: streams, citations, refusals, upload errors, expired tokens, lost sockets, hostile answers.
Not a model of the box's behaviour beyond that; nothing else may import it. Run by hand for a look at the page:
``python -m tests.e2e.fake_box``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from tests.e2e.fake_http import WEB, Gate, Rest
from tests.e2e.fake_state import PASSWORD, USERNAME, FakeBox

__all__ = ["PASSWORD", "USERNAME", "WEB", "FakeBox", "served"]


def build_app(box: FakeBox) -> ASGIApp:
    """The ASGI application over ``box``."""
    rest = Rest(box)
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
    return Gate(app, box)


@contextlib.contextmanager
def served(box: FakeBox, port: int = 0) -> Iterator[FakeBox]:
    """``box`` on a loopback port in a thread of its own; ``box.url`` is its address."""

    config = uvicorn.Config(build_app(box), host="127.0.0.1", port=port, log_level="critical", ws="websockets-sansio", lifespan="off")
    server = uvicorn.Server(config)
    started = threading.Event()

    async def run() -> None:
        box._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(10)
    box.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield box
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(5)


if __name__ == "__main__":
    with served(FakeBox(token_delay_seconds=0.04), port=8123) as shown:
        print(f"{shown.url}  {USERNAME} / {PASSWORD}")
        threading.Event().wait()
