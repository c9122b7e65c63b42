"""Chat model over the OpenAI HTTP API (vLLM, llama.cpp server, any compatible endpoint).

Owns: connections, deadlines, size limits, the way of one request. What bytes mean is in ``openai_wire``; prompts are in ``grounded_prompt``.

One network read becomes one ``Tokens`` event with every piece that arrived in it, so a fast upstream costs few steps and a slow one no delay.
``options["stream"] is False`` asks the endpoint for a whole answer (one ``Tokens`` with one piece): cheaper when the caller does not stream.
Closing the iterator early closes the upstream connection, which is how servers learn to stop generating.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Self

import aiohttp

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, ModelEvent, Tokens, Usage
from appliance.kit.egress import GUARD, Destination, Permit
from appliance.kit.errors import ApplianceError
from services.llm import openai_wire as wire
from services.llm.openai_request import request_body
from services.llm.openai_tool_calls import CallGatherer
from services.llm.settings import LlmSettings, OpenAiEndpoint
from services.llm.silence_watch import SilenceWatch

_MAX_ERROR_BYTES: Final = 64 * 1024
_KEEPALIVE_SECONDS: Final = 60.0
_DRAIN_SECONDS: Final = 0.25
_BYTES_PER_TOKEN: Final = 4  # only to estimate the usage that a server does not report
_DEFAULT: Final = Capabilities(tools=True, schema="asked")


class OpenAiChatModel:
    """``async with OpenAiChatModel(endpoint, settings) as model``; satisfies ``ChatModel``.

    Raises:
        ApplianceError: ``settings_invalid`` on entry when the key file cannot be read.
    """

    def __init__(self, endpoint: OpenAiEndpoint, settings: LlmSettings, capabilities: Capabilities = _DEFAULT) -> None:
        self.capabilities: Final = capabilities
        self._endpoint = endpoint
        self._settings = settings
        self._url = endpoint.url.rstrip("/") + "/chat/completions"
        self._headers: dict[str, str] = {}
        self._opened: aiohttp.ClientSession | None = None
        self._permit: Permit | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", **self._authorization()}
        self._permit = GUARD.permit([Destination.of_url(self._endpoint.url)])
        connector = aiohttp.TCPConnector(limit=settings.max_connections, keepalive_timeout=_KEEPALIVE_SECONDS)
        self._opened = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_seconds),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None
        if self._permit is not None:
            self._permit.revoke()
            self._permit = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ``ChatModel.stream``."""
        streamed = request.options.get("stream") is not False
        body = request_body(request, self._endpoint.model, self.capabilities, streamed=streamed)
        ends_at = self._ends_at(request)
        response = await self._post(body, ends_at)
        watch = SilenceWatch(response, self._settings.between_bytes_timeout_seconds, ends_at)
        try:
            await self._check(response, "text/event-stream" if streamed else "application/json", ends_at)
            if streamed:
                async for event in self._events(response, watch, offered=bool(request.tools)):
                    yield event
            else:
                for event in _whole_events(request, await self._whole(response, watch)):
                    yield event
        finally:
            watch.stop()
            response.close() if not response.content.at_eof() else response.release()

    async def health(self) -> None:
        """See ``ChatModel.health``: asks for the list of models."""
        url = self._endpoint.url.rstrip("/") + "/models"
        try:
            async with (
                asyncio.timeout(self._settings.health_timeout_seconds),
                self._session.get(url, headers=self._headers, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise wire.upstream_error(response.status, await response.content.read(_MAX_ERROR_BYTES))
        except (TimeoutError, aiohttp.ClientError, OSError) as exc:
            raise _translated(exc) from exc

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            raise RuntimeError("OpenAiChatModel is used outside of its `async with`")
        return self._opened

    def _authorization(self) -> dict[str, str]:
        path = self._endpoint.api_key_file
        if path is None:
            return {}
        try:
            key = path.read_text(encoding="ascii").strip().split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as exc:
            raise ApplianceError("settings_invalid", f"the key file {path} cannot be read", hint="check the path and its permissions") from exc
        return {"authorization": f"Bearer {key}"} if key else {}

    def _ends_at(self, request: ChatRequest) -> float:
        """By the loop's clock, which is the monotonic one."""
        now = asyncio.get_running_loop().time()
        ends_at = now + self._settings.total_timeout_seconds
        if request.deadline is None:
            return ends_at
        if request.deadline <= now:
            raise _translated(TimeoutError())
        return min(ends_at, request.deadline)

    async def _post(self, body: bytes, ends_at: float) -> aiohttp.ClientResponse:
        """The response up to its headers. A kept connection that the server has just closed is replaced once."""
        silence_until = asyncio.get_running_loop().time() + self._settings.first_byte_timeout_seconds
        for attempt in (1, 2):
            try:
                async with asyncio.timeout_at(min(silence_until, ends_at)):
                    return await self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)
            except aiohttp.ServerDisconnectedError as exc:
                if attempt == 2:
                    raise _unbegun(exc) from exc
            except (TimeoutError, aiohttp.ClientError, OSError) as exc:
                raise _unbegun(exc) from exc
        raise AssertionError

    async def _check(self, response: aiohttp.ClientResponse, media_type: str, ends_at: float) -> None:
        if response.status != 200:
            silence_until = asyncio.get_running_loop().time() + self._settings.between_bytes_timeout_seconds
            try:
                async with asyncio.timeout_at(min(silence_until, ends_at)):
                    body = await response.content.read(_MAX_ERROR_BYTES)
            except (TimeoutError, aiohttp.ClientError, OSError):
                body = b""
            raise wire.upstream_error(response.status, body, wire.retry_after(response.headers.get("retry-after")))
        if not response.headers.get("content-type", "").lower().startswith(media_type):
            raise wire.garbage(f"{response.headers.get('content-type', 'no content type')[:60]!r} in place of {media_type}")

    async def _whole(self, response: aiohttp.ClientResponse, watch: SilenceWatch) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := await _read(response, watch):
            parts.append(part)
            size += len(part)
            if size > self._settings.max_answer_bytes:
                raise wire.garbage("an endless answer")
        return b"".join(parts)

    async def _events(self, response: aiohttp.ClientResponse, watch: SilenceWatch, *, offered: bool) -> AsyncIterator[ModelEvent]:
        gatherer: CallGatherer | None = None
        reader = wire.EventReader(self._settings.max_line_bytes)
        reason: str | None = None
        usage: Usage | None = None
        pieces_seen = size = 0
        while not reader.done:
            received = await _read(response, watch)
            size += len(received)
            if size > self._settings.max_answer_bytes:
                raise wire.garbage("an endless answer")
            pieces: list[str] = []
            for chunk in reader.feed(received) if received else reader.end():
                if chunk.failed:
                    raise wire.midway_error(chunk.error)
                if chunk.usage:
                    usage = wire.counted(chunk.usage) or usage
                for choice in chunk.choices:
                    if (delta := choice.delta) is not None:
                        if delta.content:
                            pieces.append(delta.content)
                        if delta.tool_calls:
                            gatherer = gatherer or _gatherer(offered=offered)
                            gatherer.feed(delta.tool_calls)
                    if choice.finish_reason:
                        reason = wire.finish_reason(choice.finish_reason)
            if pieces:
                pieces_seen += len(pieces)
                yield Tokens(tuple(pieces))
            if not received:
                break
        if reason is None:
            raise wire.garbage("an answer that broke off")
        await self._drain(response)
        calls = gatherer.finished(reason) if gatherer is not None else None
        if calls is not None:
            yield calls
        yield Finish(_told_reason(reason, called=calls is not None), usage or Usage(completion_tokens=pieces_seen))

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the end of the body, so that the connection can be used again; most times it is there already."""
        if response.content.at_eof():
            return
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while await response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            response.close()


async def _read(response: aiohttp.ClientResponse, watch: SilenceWatch) -> bytes:
    """Everything that has arrived; ``b""`` at the end."""
    watch.waiting_since = watch.now()
    try:
        return await response.content.readany()
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as exc:
        raise _translated(TimeoutError() if watch.expired else exc) from exc
    finally:
        watch.waiting_since = None


def _whole_events(request: ChatRequest, body: bytes) -> list[ModelEvent]:
    completion = wire.decode_completion(body)
    choice = completion.choices[0]
    text = (choice.message.content if choice.message else None) or ""
    reason = wire.finish_reason(choice.finish_reason) or "stop"
    events: list[ModelEvent] = [Tokens((text,))] if text else []
    calls = None
    if choice.message is not None and choice.message.tool_calls:
        gatherer = _gatherer(offered=bool(request.tools))
        gatherer.feed(choice.message.tool_calls)
        calls = gatherer.finished(reason)
    if calls is not None:
        events.append(calls)
    return [*events, Finish(_told_reason(reason, called=calls is not None), wire.counted(completion.usage) or _estimate(request, text))]


def _told_reason(reason: str, *, called: bool) -> str:
    """``tool_calls`` exactly when there are calls, whatever the server wrote."""
    if called:
        return "tool_calls"
    return "stop" if reason in {"tool_calls", "function_call"} else reason


def _gatherer(*, offered: bool) -> CallGatherer:
    if not offered:
        raise wire.garbage("calls of tools that nobody offered it")
    return CallGatherer()


def _estimate(request: ChatRequest, answer: str) -> Usage:
    prompt_bytes = sum(len(message.content.encode()) for message in request.messages)
    return Usage(prompt_bytes // _BYTES_PER_TOKEN, len(answer.encode()) // _BYTES_PER_TOKEN)


def _unbegun(exc: Exception) -> ApplianceError:
    """An error before the first byte of an answer. A timeout is not tried again: the server may be at work on it."""
    error = _translated(exc)
    if isinstance(exc, aiohttp.ClientConnectionError | OSError) and not (isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ConnectionTimeoutError)):
        error.context["retryable"] = True
    return error


def _translated(exc: Exception) -> ApplianceError:
    hint = "check that the model server runs and that models.toml names its address"
    if isinstance(exc, TimeoutError):
        return ApplianceError("upstream_timeout", "the model server did not answer in time", hint=hint)
    if isinstance(exc, aiohttp.ClientConnectorError):
        return ApplianceError("upstream_failed", "the model server cannot be reached", hint=hint, cause=str(exc))
    return ApplianceError("upstream_failed", "the connection to the model server broke", hint=hint, cause=repr(exc))
