"""``GET /api/events``: what happens to tasks as server-sent events, taken up where the reader left off.

``id`` of an event is its sequence; browsers send the last one back as ``Last-Event-ID``. A reader that takes nothing for ``send_timeout_seconds`` is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from appliance.contracts.orchestrator.v1.values import TaskEvent
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway import sse
from services.gateway.asgi import Gone, Message, Receive, Scope, Send, encode_json
from services.gateway.caller import Caller, StillCaller
from services.gateway.error_bodies import error_body, internal_error
from services.gateway.following import Following
from services.gateway.limits import Slots
from services.gateway.orchestration import present
from services.gateway.ports import Dependencies
from services.gateway.routes_documents import STREAM
from services.gateway.settings import GatewaySettings

After = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="sequence of the last event that is known")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=40)]
_BEGUN: Final = b": following\n\n"
_QUIET: Final = b": quiet\n\n"
_log = get_logger(__name__)


class PatientStream(StreamingResponse):
    """A stream that holds a place among ``feeds``, and whose reader must take each piece within ``seconds``."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], seconds: float, feeds: Slots, subject: str) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._pieces = pieces
        self._seconds = seconds
        self._feeds = feeds
        self._subject = subject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._feeds.enter(self._subject)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feeds.leave(self._subject)
            await self._pieces.aclose()

    async def stream_response(self, send: Send) -> None:
        """Send with a deadline; a reader that misses it is as good as gone."""

        async def timed(message: Message) -> None:
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                raise Gone from None

        await super().stream_response(timed)


def event_routes(box: Dependencies, feeds: Slots, settings: GatewaySettings) -> APIRouter:
    """``/api/events``."""
    router = APIRouter(prefix="/api/events", tags=["events"])

    @router.get("", responses=STREAM, response_class=StreamingResponse, summary="What happens, as it happens")
    async def events(
        caller: Caller,
        again: StillCaller,
        after: After = None,
        last_event_id: LastEventId = None,
        task_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
        space: Annotated[str | None, Query(min_length=1, max_length=63)] = None,
    ) -> StreamingResponse:
        """`id` = sequence, `event` = name, `data` = the event. An `error` event ends the stream; go on with `after` or `Last-Event-ID`."""
        begin = _sequence(last_event_id) if after is None else after
        following = Following(present(box.orchestration), again, begin, task_id, space)
        await following.check()
        return PatientStream(_pieces(following), settings.send_timeout_seconds, feeds, caller.subject)

    return router


async def _pieces(following: Following) -> AsyncGenerator[bytes, None]:
    try:
        yield _BEGUN
        async with aclosing(following.events()) as events:
            async for event in events:
                yield _QUIET if event is None else _piece(event)
    except ApplianceError as error:
        yield sse.named_event("error", error_body(error))
    except Exception:
        _log.exception("event_feed_failed")
        yield sse.named_event("error", error_body(internal_error()))


def _piece(event: TaskEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.name.encode("ascii", "replace"), encode_json(event))


def _sequence(text: str | None) -> int | None:
    """``Last-Event-ID`` as a sequence; what a browser kept from another stream is ignored."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 18 else None
