"""What every socket of the box is: the line with its deadlines and limits, and the welcome, in which a token becomes a principal.

The token comes in the first message, never in the URL. A client that does not read for ``send_timeout_seconds`` is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.gateway.asgi import Receive, Scope, Send, encode_json
from services.gateway.authentication import Door, client_address
from services.gateway.chat_request import decode_json
from services.gateway.error_bodies import error_body, invalid
from services.gateway.settings import GatewaySettings

REFUSED: Final = 4401
TRY_LATER: Final = 1013


class Auth(msgspec.Struct, frozen=True, tag="auth"):
    """First message of the client."""

    token: Annotated[str, Meta(min_length=1, max_length=8192)]


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Asks for ``{type: "pong"}``."""


_first: Final = msgspec.json.Decoder(Auth)


class Left(Exception):  # noqa: N818 - a fact, not a failure
    """The client has closed the socket."""


class Line:
    """The socket with deadlines and limits."""

    def __init__(self, receive: Receive, send: Send, settings: GatewaySettings) -> None:
        self._receive = receive
        self._send = send
        self._settings = settings
        self._closed = False

    async def receive(self) -> bytes:
        """The next text message; raises ``Left``, and ``invalid_request`` for binary or too long ones."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self._closed = True
            raise Left
        text = message.get("text")
        if text is None:
            raise invalid("send text messages with JSON")
        data: bytes = text.encode("utf-8", "replace")
        if len(data) > self._settings.max_websocket_message_bytes:
            raise ApplianceError("too_large", "the message is too long")
        return data

    async def send(self, message: Mapping[str, object]) -> None:
        """Send one message; raises ``Left`` when the client does not read or is gone."""
        if self._closed:
            raise Left
        try:
            async with asyncio.timeout(self._settings.send_timeout_seconds):
                await self._send({"type": "websocket.send", "text": encode_json(message).decode("utf-8")})
        except (TimeoutError, OSError, RuntimeError) as exc:
            self._closed = True
            raise Left from exc

    async def error(self, asked: str | None, error: ApplianceError) -> None:
        """Tell about an error; the connection lives on."""
        await self.send({"type": "error", "id": asked, "error": error_body(error).error})

    async def refuse(self, error: ApplianceError, asked: str | None = None) -> None:
        """Tell about an error and close."""
        if self._closed:
            return
        with suppress(Left, OSError, RuntimeError):
            await self.error(asked, error)
            self._closed = True
            await self._send({"type": "websocket.close", "code": REFUSED if error.code == "unauthenticated" else TRY_LATER})


async def welcome(line: Line, scope: Scope, request_id: str, door: Door, settings: GatewaySettings, action: str) -> tuple[Principal, bytes]:
    """Who speaks, and the bearer to ask for it again; raises ``unauthenticated`` when no good token comes in time."""
    try:
        async with asyncio.timeout(settings.websocket_auth_seconds):
            auth = decode_json(await line.receive(), _first)
    except TimeoutError:
        raise ApplianceError("unauthenticated", "no auth message came in time") from None
    except ApplianceError as error:
        raise ApplianceError("unauthenticated", "the first message must be of type auth", hint=error.message) from error
    bearer = b"Bearer " + auth.token.encode("utf-8", "replace")
    return await door.principal(bearer, client_address(scope), action=action, correlation_id=request_id), bearer


def first_error(errors: BaseExceptionGroup[ApplianceError]) -> ApplianceError:
    """The innermost one."""
    inner = errors.exceptions[0]
    return inner if isinstance(inner, ApplianceError) else first_error(inner)


def same_origin(scope: Scope) -> bool:
    """Browsers send Origin; a foreign page must not drive the socket. Other clients send none."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    origin = headers.get(b"origin")
    if origin is None:
        return True
    host: bytes = headers.get(b"host", b"")
    return urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") == host
