"""Caps JSON bodies in front of FastAPI, which would read them whole. Multipart bodies have caps of their own (``uploads``)."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from services.gateway.asgi import AsgiApp, Message, Receive, Scope, Send, too_large


class BodyLimit:
    """``too_large`` at once when the length is declared, and while reading when it is not."""

    def __init__(self, inner: AsgiApp, limit_bytes: int) -> None:
        self._inner = inner
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data"):
            await self._inner(scope, receive, send)
            return
        if int(headers.get(b"content-length", b"0")) > self._limit_bytes:
            raise too_large(self._limit_bytes)
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit_bytes:
                # FastAPI passes only HTTPException through while it reads a body; the handler finds the cause
                raise HTTPException(413) from too_large(self._limit_bytes)
            return message

        await self._inner(scope, counted, send)
