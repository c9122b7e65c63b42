"""ASGI in our words: the types, reading a body with a limit, and one HTTP exchange that knows how to begin and end.

Everything that leaves the box passes :class:`Exchange`, which adds the request id and the security headers to every answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Protocol

import msgspec

from appliance.kit.errors import ApplianceError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

encode_json: Final = msgspec.json.Encoder().encode
_SECURITY: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CLOSED_CSP: Final[Header] = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Gone(Exception):  # noqa: N818 - a fact, not a failure
    """The client has left; nobody reads the answer."""


class BeforeAnswer(Protocol):
    """Awaited once, just before the first byte of an answer leaves (the audit record becomes durable there)."""

    async def __call__(self, status: int) -> None: ...


class Exchange:
    """One HTTP request and its answer.

    Invariants: the answer starts at most once; after ``finished`` nothing is sent; ``status`` is 0 until the answer starts.
    """

    __slots__ = ("_receive", "_send", "before_answer", "extra_headers", "finished", "headers", "refusal", "request_id", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, headers: dict[bytes, bytes]) -> None:
        self.scope = scope
        self.headers = headers
        self.request_id = request_id
        self.status = 0
        self.finished = False
        self.extra_headers: tuple[Header, ...] = ()
        self.before_answer: BeforeAnswer | None = None
        self.refusal: ApplianceError | None = None
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """Next ASGI message of the client."""
        return await self._receive()

    async def send(self, message: Message) -> None:
        """ASGI ``send`` for inner applications; completes the headers of the answer."""
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            await self._start(message["status"], given, own_policy=any(name == b"content-security-policy" for name, _ in given))
        else:
            self.finished = not message.get("more_body", False)
            await self._send(message)

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """Begin the answer."""
        await self._start(status, list(headers), own_policy=False)

    async def body(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body; ``more=False`` ends the answer."""
        self.finished = not more
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def json(self, status: int, value: object, headers: Iterable[Header] = ()) -> None:
        """A whole JSON answer."""
        body = encode_json(value)
        await self._start(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers], own_policy=False)
        await self.body(body, more=False)

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            ApplianceError: ``too_large`` as soon as that is known, before the rest is read.
            Gone: the client left.
        """
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > limit_bytes:
            raise too_large(limit_bytes)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            first: bytes = message.get("body", b"")
            if len(first) > limit_bytes:
                raise too_large(limit_bytes)
            return first
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit_bytes:
                raise too_large(limit_bytes)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await self._receive()

    async def _start(self, status: int, headers: list[Header], *, own_policy: bool) -> None:
        if self.before_answer is not None:
            before, self.before_answer = self.before_answer, None
            try:
                await before(status)
            except ApplianceError as error:
                self.refusal = error  # frameworks in between may replace the exception; the front looks here
                raise
        headers.append((b"x-request-id", self.request_id.encode("ascii")))
        headers += _SECURITY
        headers += self.extra_headers
        if not own_policy:
            headers.append(_CLOSED_CSP)
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def too_large(limit_bytes: int) -> ApplianceError:
    """The refusal of a body above ``limit_bytes``."""
    return ApplianceError("too_large", f"the request body is larger than {limit_bytes} bytes", hint="send less at once", limit_bytes=limit_bytes)
