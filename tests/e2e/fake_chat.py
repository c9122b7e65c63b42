"""``/ws/chat`` of the fake box. See ``fake_box``."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.e2e import scripted
from tests.e2e.fake_state import USERNAME, FakeBox, Json


class ChatSocket:
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
            if answer.passages is not None:
                await send(
                    {
                        "type": "step",
                        "id": ask["id"],
                        "name": "search",
                        "detail": {"passages": answer.passages, "documents": [], "language": "en", "degraded": []},
                    }
                )
            for step in answer.steps:
                await send({"type": "step", "id": ask["id"], **step})
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
                    "agent": ask.get("agent") or answer.agent,
                    "cached": False,
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
