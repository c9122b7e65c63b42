"""``/ws/chat`` as plain ASGI: typed messages, one turn at a time, cancel, ping; a client that leaves takes its work with it.

Protocol: docs/api.md. The token comes in the first message, never in the URL. Every message of the box is sent directly; a client that does
not read for ``send_timeout_seconds`` is dropped, so no answer piles up in memory.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Annotated, Final, NoReturn

import msgspec
from msgspec import Meta

from appliance.contracts.llm.v1.api import Message
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, StepEvent, TokenEvent, ToolCallsEvent
from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.telemetry import request_span
from services.gateway.annotations import flat_citation
from services.gateway.asgi import Receive, Scope, Send
from services.gateway.authentication import ALLOWED, DENIED, ON_RECORD, Door, forget, spaces_detail
from services.gateway.authority import AuthorityWatch
from services.gateway.chat_request import Name, decode_json, too_long
from services.gateway.conversation import Answer, Conversation, with_history
from services.gateway.error_bodies import internal_error, invalid
from services.gateway.limits import RateLimits, Slots
from services.gateway.settings import GatewaySettings
from services.gateway.sse import wire_tool_call, wire_usage
from services.gateway.ws_line import REFUSED, Left, Line, Ping, first_error, same_origin, welcome

ACTION: Final = "chat.converse"
_log = get_logger(__name__)


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Begin a turn."""

    id: Name
    text: str
    spaces: Annotated[list[Name], Meta(max_length=1000)] | None = None
    thread_id: Name | None = None
    model: Name = "default"
    top_k: Annotated[int, Meta(ge=1, le=50)] = 5
    document_ids: Annotated[list[Name], Meta(max_length=1000)] | None = None
    agent: Name | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End the turn ``id`` early."""

    id: Name


_later: Final = msgspec.json.Decoder(Ask | Cancel | Ping)


class ChatSocket:
    """The endpoint; ``handle`` serves one connection."""

    def __init__(self, door: Door, limits: RateLimits, sockets: Slots, turns: Slots, conversation: Conversation, settings: GatewaySettings) -> None:
        self._door = door
        self._limits = limits
        self._sockets = sockets
        self._turns = turns
        self._conversation = conversation
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
            principal, bearer = await welcome(line, scope, request_id, self._door, self._settings, ACTION)
            self._sockets.enter(principal.subject)
            entered = principal.subject
            await line.send({"type": "ready", "subject": principal.subject})
            async with asyncio.TaskGroup() as group:
                session = _Session(self, line, principal, bearer, request_id, group)
                await session.run()
        except* (Left, TimeoutError):
            pass
        except* ApplianceError as errors:
            await line.refuse(first_error(errors))
        except* Exception:
            _log.exception("socket_failed")
            await line.refuse(internal_error())
        finally:
            if entered is not None:
                self._sockets.leave(entered)

    async def turn(self, ask: Ask, line: Line, subject: str, bearer: bytes, request_id: str) -> None:
        """One turn of a caller who may still ask; when that ends, so do the turn and the connection (close code 4401)."""

        async def again() -> Principal:
            return await self._door.again(bearer)

        try:
            principal = await again()
        except ApplianceError as error:
            await self._dismiss(ask, line, subject, request_id, error)
        with AuthorityWatch(again) as authority:
            try:
                await self._turn(ask, line, principal, request_id)
            except asyncio.CancelledError:
                if (lost := authority.lost()) is None:
                    raise
                await self._dismiss(ask, line, subject, request_id, lost)

    async def _dismiss(self, ask: Ask, line: Line, subject: str, request_id: str, error: ApplianceError) -> NoReturn:
        await self._door.refuse(subject, ACTION, f"model:{ask.model}", request_id, error)
        await line.refuse(error, ask.id)
        raise Left

    async def reject(self, line: Line, asked: str | None, principal: Principal, request_id: str, error: ApplianceError) -> None:
        """Put a refusal on record, then tell."""
        await self._door.refuse(principal.subject, ACTION, "", request_id, error)
        await line.error(asked, error)

    async def _turn(self, ask: Ask, line: Line, principal: Principal, request_id: str) -> None:
        """From the limits to ``done``; errors become ``error`` messages."""
        entered = False
        try:
            self._limits.take(principal, "chat")
            self._turns.enter(principal.subject)
            entered = True
            with request_span("gateway.request", None, {names.REQUEST: request_id, "http.route": "/ws/chat"}):
                async with asyncio.timeout(self._settings.max_turn_seconds):
                    await self._answer(ask, line, principal, request_id)
        except ApplianceError as error:
            await self.reject(line, ask.id, principal, request_id, error)
        except asyncio.CancelledError:
            raise
        except TimeoutError:
            await line.error(ask.id, ApplianceError("upstream_timeout", "the answer took too long"))
        except Left:
            raise
        except Exception:
            _log.exception("socket_turn_failed")
            await line.error(ask.id, internal_error())
        finally:
            if entered:
                self._turns.leave(principal.subject)

    async def _answer(self, ask: Ask, line: Line, principal: Principal, request_id: str) -> None:
        turn = _turn(ask, request_id, self._settings)
        answer = Answer()
        resource = f"model:{ask.model}"
        try:
            self._conversation.check(ask.model, ask.spaces, principal)
            if ask.thread_id is not None:
                turn, history = await self._conversation.open_thread(ask.thread_id, turn, principal, answer)
                turn = with_history(turn, history)
        except ApplianceError as error:
            if error.outcome.http in (403, 404):
                await self._door.record(principal.subject, ACTION, resource, DENIED, request_id, spaces_detail(ask.spaces, principal))
                error.context[ON_RECORD] = True
            raise
        detail = spaces_detail(turn.spaces, principal)
        if answer.thread_id is not None:
            detail["thread"] = answer.thread_id
        record = self._door.record(principal.subject, ACTION, resource, ALLOWED, request_id, detail)
        try:
            async with aclosing(self._conversation.run(turn, principal, answer)) as events:
                async for event in events:
                    if not record.done() and not isinstance(event, StepEvent):
                        await record
                    await line.send(_message(ask.id, event, answer))
            await record
        except BaseException:
            forget(record)
            raise


class _Session:
    """One authenticated connection: reads messages, runs at most one turn."""

    def __init__(self, socket: ChatSocket, line: Line, principal: Principal, bearer: bytes, request_id: str, group: asyncio.TaskGroup) -> None:
        self._socket = socket
        self._line = line
        self._principal = principal
        self._bearer = bearer
        self._request_id = request_id
        self._group = group
        self._turn: asyncio.Task[None] | None = None
        self._asked = ""

    async def run(self) -> None:
        """Until the client leaves (raises ``Left``, which cancels the turn with the task group)."""
        while True:
            try:
                message = decode_json(await self._line.receive(), _later)
            except ApplianceError as error:
                await self._socket.reject(self._line, None, self._principal, self._request_id, error)
                continue
            match message:
                case Ping():
                    await self._line.send({"type": "pong"})
                case Cancel(id=asked):
                    await self._cancel(asked)
                case Ask():
                    await self._ask(message)

    async def _ask(self, ask: Ask) -> None:
        if self._turn is not None and not self._turn.done():
            await self._line.error(ask.id, ApplianceError("conflict", "another turn is running", hint="wait for its end, or cancel it"))
            return
        self._asked = ask.id
        self._turn = self._group.create_task(self._socket.turn(ask, self._line, self._principal.subject, self._bearer, self._request_id))

    async def _cancel(self, asked: str) -> None:
        turn = self._turn
        if turn is None or turn.done() or asked != self._asked:
            return
        turn.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([turn])
        if turn.cancelled():
            await self._line.error(asked, ApplianceError("cancelled", "the turn was cancelled"))


def _turn(ask: Ask, request_id: str, settings: GatewaySettings) -> ChatTurn:
    if not ask.text.strip():
        raise invalid("text is empty", "text")
    if len(ask.text) > settings.max_chat_characters:
        raise too_long(f"more than {settings.max_chat_characters} characters")
    return ChatTurn(
        messages=[Message("user", ask.text)],
        model=ask.model,
        spaces=None if ask.spaces is None else tuple(ask.spaces),
        top_k=ask.top_k,
        document_ids=None if ask.document_ids is None else tuple(ask.document_ids),
        trace_id=request_id,
        agent=ask.agent or "",
        deadline=time.monotonic() + settings.max_turn_seconds,
    )


def _message(asked: str, event: ChatEvent, answer: Answer) -> dict[str, object]:
    match event:
        case TokenEvent():
            return {"type": "token", "id": asked, "text": "".join(event.pieces)}
        case StepEvent():
            return {"type": "step", "id": asked, "name": event.name, "detail": event.detail}
        case CitationEvent():
            return {"type": "citation", "id": asked, **flat_citation(event)}
        case ToolCallsEvent():
            return {"type": "tool_calls", "id": asked, "calls": [wire_tool_call(call) for call in event.calls]}
        case DoneEvent():
            return {
                "type": "done",
                "id": asked,
                "finish_reason": event.finish_reason,
                "usage": wire_usage(event.usage),
                "model": event.model,
                "refused": event.refused,
                "agent": event.agent,
                "cached": event.cached,
                "thread_id": answer.thread_id,
            }
