"""``POST /v1/chat/completions`` and ``POST /v1/responses`` as plain ASGI: the hot path. What their bytes look like is in the answer forms.

Order: rate limit → read and decode → rights → the audit record begins → router → (record durable) → first byte. Nothing here uses pydantic
or FastAPI. An error before the first byte is an ordinary error answer; after it, an ``error`` event ends the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, DoneEvent
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.schema.gate_threads import GATE
from services.gateway import sse
from services.gateway.asgi import Exchange, Gone
from services.gateway.authentication import ALLOWED, DENIED, ON_RECORD, Door, client_address, forget, spaces_detail
from services.gateway.authority import AuthorityWatch
from services.gateway.chat_request import ChatCompletionRequest, plain_messages, sampling_options
from services.gateway.chat_tools import answer_schema, chosen, tool_specs
from services.gateway.conversation import Answer, Conversation
from services.gateway.departure import DepartureWatch
from services.gateway.error_bodies import internal_error
from services.gateway.limits import RateLimits, Slots
from services.gateway.settings import GatewaySettings

ACTION = "chat.complete"
_DEFAULT_TOP_K = 5
_log = get_logger(__name__)


class AnswerForm(Protocol):
    """One answer as bytes of one API."""

    def opening(self) -> bytes:
        """Before the first event of a stream."""
        ...

    def event(self, event: ChatEvent, answer: Answer) -> bytes:
        """What to send for ``event``; nothing for some. With ``DoneEvent`` the stream ends."""
        ...

    def broken(self, error: ApplianceError) -> bytes:
        """The end of a stream that failed after its first byte."""
        ...

    def whole(self, answer: Answer) -> object:
        """The answer of a request that does not stream."""
        ...


Decode = Callable[[bytes, GatewaySettings], ChatCompletionRequest]
"""The body as a request; raises ``malformed_json``, ``invalid_request``, ``context_length_exceeded``."""
Forms = Callable[[ChatCompletionRequest], AnswerForm]


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request on its way to an answer; ``record`` is the audit record of the decision, under way."""

    request: ChatCompletionRequest
    form: AnswerForm
    turn: ChatTurn
    principal: Principal
    answer: Answer
    record: asyncio.Future[int]


class ChatEdge:
    """One endpoint; ``handle`` serves one request."""

    def __init__(
        self,
        door: Door,
        limits: RateLimits,
        slots: Slots,
        conversation: Conversation,
        settings: GatewaySettings,
        decode: Decode,
        form: Forms,
        param: Callable[[str], str] = str,
    ) -> None:
        self._decode = decode
        self._form = form
        self._param = param
        self._door = door
        self._limits = limits
        self._slots = slots
        self._conversation = conversation
        self._settings = settings

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request; raises ApplianceError only while nothing has been sent, with ``param`` in the words of this API."""
        try:
            await self._serve(exchange)
        except ApplianceError as error:
            param = error.context.get("param", "response_format" if error.code.startswith("schema_") else None)
            if isinstance(param, str):
                error.context["param"] = self._param(param)
            raise

    async def _serve(self, exchange: Exchange) -> None:
        address = client_address(exchange.scope)
        principal = await self._door.principal(exchange.headers.get(b"authorization"), address, action=ACTION, correlation_id=exchange.request_id)
        entered = False
        try:
            exchange.extra_headers = self._limits.take(principal, "chat")
            self._slots.enter(principal.subject)
            entered = True
            request = self._decode(await exchange.read(self._settings.max_json_bytes), self._settings)
            admitted = await self._admit(request, principal, exchange)
            exchange.extra_headers += self._conversation.quota_headers(admitted.turn.spaces, principal)
        except BaseException as error:
            if entered:
                self._slots.leave(principal.subject)
            if isinstance(error, ApplianceError):
                await self._door.refuse(principal.subject, ACTION, "", exchange.request_id, error)
            raise
        try:
            await self._watched(exchange, admitted)
        finally:
            self._slots.leave(principal.subject)

    async def _watched(self, exchange: Exchange, admitted: _Admitted) -> None:
        """Answer until the client leaves, time is up, or the caller may no longer be served."""

        async def again() -> Principal:
            return await self._door.again(exchange.headers.get(b"authorization"))

        with (
            AuthorityWatch(again, armed=False) as authority,
            DepartureWatch(exchange.receive, self._settings.max_turn_seconds, authority.arm) as watch,
        ):
            try:
                await self._answer(exchange, admitted)
            except asyncio.CancelledError:
                if (lost := authority.lost()) is not None:
                    await self._door.refuse(admitted.principal.subject, ACTION, f"model:{admitted.request.model}", exchange.request_id, lost)
                    await self._dismiss(exchange, admitted.form, lost)
                    return
                if watch.reason is None:
                    raise
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()
                if watch.reason == "left":
                    raise Gone from None
                await self._dismiss(exchange, admitted.form, ApplianceError("upstream_timeout", "the answer took too long"))

    async def _dismiss(self, exchange: Exchange, form: AnswerForm, error: ApplianceError) -> None:
        """End an answer from outside: its caller may no longer be here, or its time is up."""
        try:
            async with asyncio.timeout(self._settings.send_timeout_seconds):
                await _break_off(exchange, error, form)
        except TimeoutError:
            raise Gone from None

    async def _admit(self, request: ChatCompletionRequest, principal: Principal, exchange: Exchange) -> _Admitted:
        """The turn to run. A refusal is on record before it is raised."""
        model = f"model:{request.model}"
        answer = Answer()
        try:
            self._conversation.check(request.model, request.spaces, principal)
            if request.tools or request.response_format is not None:
                turn = await GATE.run(lambda: _turn(request, exchange.request_id, self._settings))  # the gate may take 100 ms for a large schema
            else:
                turn = _turn(request, exchange.request_id, self._settings)
            if request.thread_id is not None:
                turn, _ = await self._conversation.open_thread(request.thread_id, turn, principal, answer)
        except ApplianceError as error:
            if error.outcome.http in (403, 404):
                await self._door.record(principal.subject, ACTION, model, DENIED, exchange.request_id, spaces_detail(request.spaces, principal))
                error.context[ON_RECORD] = True
            raise
        detail = spaces_detail(turn.spaces, principal)
        if answer.thread_id is not None:
            detail["thread"] = answer.thread_id
        record = self._door.record(principal.subject, ACTION, model, ALLOWED, exchange.request_id, detail)
        return _Admitted(request, self._form(request), turn, principal, answer, record)

    async def _answer(self, exchange: Exchange, admitted: _Admitted) -> None:
        answer, record = admitted.answer, admitted.record
        try:
            async with aclosing(self._conversation.run(admitted.turn, admitted.principal, answer)) as events:
                if admitted.request.stream:
                    await self._stream(exchange, admitted, events)
                else:
                    async for _ in events:
                        pass
                    await record
                    await exchange.json(200, admitted.form.whole(answer))
        except BaseException:
            forget(record)
            raise

    async def _stream(self, exchange: Exchange, admitted: _Admitted, events: AsyncIterator[ChatEvent]) -> None:
        form = admitted.form
        try:
            async for event in events:
                if data := form.event(event, admitted.answer):
                    if not exchange.status:
                        await admitted.record
                        await exchange.start(200, sse.HEADERS)
                        data = form.opening() + data
                    await exchange.body(data, more=type(event) is not DoneEvent)
        except ApplianceError as error:
            await _break_off(exchange, error, form)
        except Exception:
            if not exchange.status:
                raise
            _log.exception("chat_stream_failed")
            await _break_off(exchange, internal_error(), form)


async def _break_off(exchange: Exchange, error: ApplianceError, form: AnswerForm) -> None:
    """End a stream with an error event; before its first byte, raise instead."""
    if not exchange.status:
        raise error
    if not exchange.finished:
        await exchange.body(form.broken(error), more=False)


def _turn(request: ChatCompletionRequest, request_id: str, settings: GatewaySettings) -> ChatTurn:
    tools = tool_specs(request.tools)
    return ChatTurn(
        messages=plain_messages(request, settings),
        model=request.model,
        spaces=None if request.spaces is None else tuple(request.spaces),
        top_k=request.top_k or _DEFAULT_TOP_K,
        document_ids=None if request.document_ids is None else tuple(request.document_ids),
        options=sampling_options(request),
        trace_id=request_id,
        tools=tools,
        tool_choice=chosen(request.tool_choice, tools),
        answer_schema=answer_schema(request.response_format),
        agent=request.agent or "",
        deadline=time.monotonic() + settings.max_turn_seconds,
    )
