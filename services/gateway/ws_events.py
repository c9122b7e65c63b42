"""``/ws/events`` as plain ASGI: what happens to tasks, one feed at a time, taken up by ``after``. Protocol: docs/api.md.

Rights are asked for again every second while a feed runs; who lost them is told and dropped (close code 4401), as on ``/ws/chat``. Events are sent
directly: a client that does not read is dropped by the line, one that reads too slowly is cut by the feed (``overloaded``) and takes up again.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway.asgi import Receive, Scope, Send
from services.gateway.authentication import ALLOWED, Door
from services.gateway.chat_request import Name, decode_json
from services.gateway.error_bodies import internal_error
from services.gateway.following import Following
from services.gateway.limits import RateLimits, Slots
from services.gateway.orchestration import Orchestration, present
from services.gateway.settings import GatewaySettings
from services.gateway.ws_line import REFUSED, Left, Line, Ping, first_error, same_origin, welcome

ACTION: Final = "events.follow"
_log = get_logger(__name__)


class Follow(msgspec.Struct, frozen=True, tag="follow", rename="camel"):
    """Begin a feed: everything the caller may see, one space, or one task; ``after`` takes up a broken one."""

    id: Name
    after: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    task_id: Name | None = None
    space: Name | None = None


class Unfollow(msgspec.Struct, frozen=True, tag="unfollow"):
    """End the feed ``id``."""

    id: Name


_later: Final = msgspec.json.Decoder(Follow | Unfollow | Ping)


class EventSocket:
    """The endpoint; ``handle`` serves one connection."""

    def __init__(
        self, door: Door, limits: RateLimits, sockets: Slots, feeds: Slots, orchestration: Orchestration | None, settings: GatewaySettings
    ) -> None:
        self.door = door
        self.limits = limits
        self.feeds = feeds
        self.orchestration = orchestration
        self._sockets = sockets
        self._settings = settings

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Serve one connection until either side leaves."""
        if (await receive())["type"] != "websocket.connect":
            return
        if not same_origin(scope):
            await send({"type": "websocket.close", "code": REFUSED})
            return
        await send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode("ascii"))]})
        line = Line(receive, send, self._settings)
        entered: str | None = None
        try:
            principal, bearer = await welcome(line, scope, request_id, self.door, self._settings, ACTION)
            self._sockets.enter(principal.subject)
            entered = principal.subject
            await line.send({"type": "ready", "subject": principal.subject})
            async with asyncio.TaskGroup() as group:
                await _Session(self, line, principal, bearer, request_id, group).run()
        except* (Left, TimeoutError):
            pass
        except* ApplianceError as errors:
            await line.refuse(first_error(errors))
        except* Exception:
            _log.exception("event_socket_failed")
            await line.refuse(internal_error())
        finally:
            if entered is not None:
                self._sockets.leave(entered)


class _Session:
    """One authenticated connection: reads messages, runs at most one feed."""

    def __init__(self, socket: EventSocket, line: Line, principal: Principal, bearer: bytes, request_id: str, group: asyncio.TaskGroup) -> None:
        self._socket = socket
        self._line = line
        self._principal = principal
        self._bearer = bearer
        self._request_id = request_id
        self._group = group
        self._feed: asyncio.Task[None] | None = None
        self._followed = ""

    async def run(self) -> None:
        """Until the client leaves (raises ``Left``, which cancels the feed with the task group)."""
        while True:
            try:
                message = decode_json(await self._line.receive(), _later)
            except ApplianceError as error:
                await self._reject(None, error)
                continue
            match message:
                case Ping():
                    await self._line.send({"type": "pong"})
                case Unfollow(id=asked):
                    await self._unfollow(asked)
                case Follow():
                    await self._begin(message)

    async def _begin(self, asked: Follow) -> None:
        if self._feed is not None and not self._feed.done():
            await self._line.error(asked.id, ApplianceError("conflict", "another feed is running", hint="unfollow it, or open another socket"))
            return
        self._followed = asked.id
        self._feed = self._group.create_task(self._run(asked))

    async def _unfollow(self, asked: str) -> None:
        feed = self._feed
        if feed is None or feed.done() or asked != self._followed:
            return
        feed.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([feed])
        await self._line.send({"type": "unfollowed", "id": asked})

    async def _run(self, asked: Follow) -> None:
        """From the limits to the end of the feed; errors become ``error`` messages, lost authority the end of the connection."""
        subject = self._principal.subject
        entered = False
        try:
            self._socket.limits.take(self._principal, "api")
            self._socket.feeds.enter(subject)
            entered = True
            await self._forward(asked)
        except ApplianceError as error:
            if error.code == "unauthenticated":
                await self._socket.door.refuse(subject, ACTION, _resource(asked), self._request_id, error)
                await self._line.refuse(error, asked.id)
                raise Left from None
            await self._reject(asked.id, error)
        except Left:
            raise
        except Exception:
            _log.exception("event_feed_failed")
            await self._line.error(asked.id, internal_error())
        finally:
            if entered:
                self._socket.feeds.leave(subject)

    async def _forward(self, asked: Follow) -> None:
        async def again() -> Principal:
            return await self._socket.door.again(self._bearer)

        following = Following(present(self._socket.orchestration), again, asked.after, asked.task_id, asked.space)
        await following.check()
        await self._socket.door.record(self._principal.subject, ACTION, _resource(asked), ALLOWED, self._request_id, {})
        await self._line.send({"type": "following", "id": asked.id})
        async with aclosing(following.events()) as events:
            async for event in events:
                if event is not None:
                    await self._line.send({"type": "event", "id": asked.id, "event": event})

    async def _reject(self, asked: str | None, error: ApplianceError) -> None:
        """Put a refusal on record, then tell."""
        await self._socket.door.refuse(self._principal.subject, ACTION, "", self._request_id, error)
        await self._line.error(asked, error)


def _resource(asked: Follow) -> str:
    if asked.task_id is not None:
        return f"task:{asked.task_id}"
    return f"space:{asked.space}" if asked.space is not None else "events"
