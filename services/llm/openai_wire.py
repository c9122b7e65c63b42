"""What an OpenAI-compatible endpoint says, decoded: server-sent events, whole completions, errors.

Pure: bytes in, values out. Owns the limits on lines and the translation of upstream errors; does not own connections or deadlines.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import Usage
from appliance.kit.errors import ApplianceError
from services.llm.openai_tool_calls import CallPiece

_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_HINT: Final = "check the log of the model server and `appliance doctor`"
_MESSAGE_CHARACTERS: Final = 300
_MOST_TOKENS: Final = 2**31 - 1
_HUGE: Final = re.compile(rb"\s*[1-9]")
_LONGEST_WAIT: Final = 3600.0
_SAFE_STATUSES: Final = frozenset({429, 502, 503, 504})  # refused or not begun: a second try generates nothing twice
_REASONS: Final = frozenset({"stop", "length", "content_filter", "tool_calls", "function_call"})


class _WireUsage(msgspec.Struct, frozen=True):
    """``usage`` of an answer; its numbers stay undecoded, because a number that is none must not end the answer."""

    prompt_tokens: msgspec.Raw = msgspec.Raw()
    completion_tokens: msgspec.Raw = msgspec.Raw()
    prompt_tokens_details: msgspec.Raw = msgspec.Raw()


class _CachedDetails(msgspec.Struct, frozen=True):
    cached_tokens: msgspec.Raw = msgspec.Raw()


class _Said(msgspec.Struct, frozen=True):
    """``delta`` or ``message``."""

    content: str | None = None
    tool_calls: list[CallPiece] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """One choice of a chunk."""

    delta: _Said | None = None
    finish_reason: Any = None


class Chunk(msgspec.Struct, frozen=True):
    """One server-sent event; ``failed`` when it carries an error in place of choices."""

    choices: list[ChunkChoice] = []
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()

    @property
    def failed(self) -> bool:
        """Whether the upstream reports a failure midway."""
        return len(self.error) > 0 and self.error != b"null"


class _WholeChoice(msgspec.Struct, frozen=True):
    message: _Said | None = None
    finish_reason: Any = None


class Completion(msgspec.Struct, frozen=True):
    """A whole (not streamed) answer."""

    choices: list[_WholeChoice]
    usage: msgspec.Raw = msgspec.Raw()


_chunk: Final = msgspec.json.Decoder(Chunk)
_completion: Final = msgspec.json.Decoder(Completion)
_usage: Final = msgspec.json.Decoder(_WireUsage | None)
_cached: Final = msgspec.json.Decoder(_CachedDetails | None)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def counted(raw: msgspec.Raw) -> Usage | None:
    """``usage`` in our words, every number within 0..2^31-1; None when there is none. Raises nothing: accounts must not end an answer."""
    try:
        usage = _usage.decode(raw) if len(raw) else None
    except _UNREADABLE:
        return None
    if usage is None:
        return None
    try:
        details = _cached.decode(usage.prompt_tokens_details) if len(usage.prompt_tokens_details) else None
    except _UNREADABLE:
        details = None
    return Usage(_tokens(usage.prompt_tokens), _tokens(usage.completion_tokens), _tokens(details.cached_tokens) if details else 0)


def finish_reason(given: object) -> str | None:
    """Why the model ended, in OpenAI's words; what is none of them is ``stop``, and nothing is nothing."""
    if isinstance(given, str) and given in _REASONS:
        return given
    return "stop" if given else None


def _tokens(raw: msgspec.Raw) -> int:
    try:
        value = msgspec.json.decode(raw) if len(raw) else 0
    except _UNREADABLE:  # no number, or one beyond every number
        return _MOST_TOKENS if _HUGE.match(bytes(raw)) else 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(max(0, min(value, _MOST_TOKENS)))


def garbage(what: str) -> ApplianceError:
    """The error for an endpoint that does not speak the protocol."""
    return ApplianceError("upstream_failed", f"the model server sent {what}", hint=_HINT)


class EventReader:
    """Cuts a byte stream into decoded chunks, wherever the network cut it.

    Invariants: neither a line nor the data of an event is ever longer than ``max_line_bytes``, and the work is linear in what arrives;
    after ``done`` nothing more is decoded.
    """

    __slots__ = ("_data", "_data_bytes", "_max_line_bytes", "_rest", "_rest_bytes", "done")

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self.done = False

    def feed(self, received: bytes) -> list[Chunk]:
        """Chunks that ``received`` completes; raises ``upstream_failed`` for what is no chunk."""
        if b"\n" not in received:
            self._keep(received)
            return []
        if self._rest:
            received = b"".join((*self._rest, received))
            self._rest, self._rest_bytes = [], 0
        lines = received.split(b"\n")
        if rest := lines.pop():
            self._keep(rest)
        chunks: list[Chunk] = []
        for line in lines:
            if line.startswith(_DATA):
                self._data.append(line[5:])
                self._data_bytes += len(line) - 4  # with the line break that joins it to the next
                if self._data_bytes > self._max_line_bytes:
                    raise garbage("an endless event")
            elif self._data and (not line or line == b"\r"):
                self._dispatch(chunks)
        return chunks

    def end(self) -> list[Chunk]:
        """What stands in the buffer when the body ends; some servers leave out the last blank line."""
        chunks = self.feed(b"\n\n")
        self.done = self.done or not chunks
        return chunks

    def _keep(self, rest: bytes) -> None:
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        if self._rest_bytes > self._max_line_bytes:
            raise garbage("an endless line")

    def _dispatch(self, chunks: list[Chunk]) -> None:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data, self._data_bytes = [], 0
        if self.done:
            return
        if data.strip() == _DONE:
            self.done = True
            return
        try:
            chunks.append(_chunk.decode(data))
        except _UNREADABLE as exc:
            raise garbage("an event that is not a chat completion chunk") from exc


def decode_completion(body: bytes) -> Completion:
    """A whole answer; raises ``upstream_failed`` for anything else."""
    try:
        completion = _completion.decode(body)
    except _UNREADABLE as exc:
        raise garbage("something that is not a chat completion") from exc
    if not completion.choices:
        raise garbage("a completion without choices")
    return completion


def retry_after(value: str | None) -> float | None:
    """Seconds that ``Retry-After`` asks for, 0..3600; None when it is absent, a date, or nonsense (clocks on an isolated site differ)."""
    if value is None or not value.strip().isascii() or not value.strip().replace(".", "", 1).isdigit():
        return None
    return min(float(value.strip()[:16]), _LONGEST_WAIT)


def upstream_error(status: int, body: bytes, wait: float | None = None) -> ApplianceError:
    """What a refusal of the endpoint means to the caller. Its text is shown only where it speaks about the caller's request.

    ``context`` says to a pool what may be done: ``retryable`` when nothing was generated and another try is safe, ``retry_after`` in seconds when asked for.
    """
    error = _refusal(status, body)
    if status in _SAFE_STATUSES:
        error.context["retryable"] = True
    if wait is not None and status in {429, 503}:
        error.context["retry_after"] = wait
        error.context["retry_after_seconds"] = math.ceil(wait)
    return error


def _refusal(status: int, body: bytes) -> ApplianceError:
    message, code = _complaint(body)
    if status == 400 and (code == "context_length_exceeded" or "context length" in message or "maximum context" in message):
        return ApplianceError(
            "context_length_exceeded", "the conversation is longer than the model can read", hint="shorten it, or ask with fewer sources"
        )
    if status == 429:
        return ApplianceError("overloaded", "the model server is busy", hint="try again in a moment", upstream_status=status)
    if status in (400, 422):
        return ApplianceError(
            "invalid_request",
            f"the model server refused the request: {message}" if message else "the model server refused the request",
            upstream_status=status,
        )
    if status in (408, 504):
        return ApplianceError("upstream_timeout", "the model server gave up", hint=_HINT, upstream_status=status)
    return ApplianceError("upstream_failed", f"the model server answered {status}", hint=_HINT, upstream_status=status, upstream_message=message)


def midway_error(raw: msgspec.Raw) -> ApplianceError:
    """An ``{"error": …}`` event inside a stream that had begun."""
    message, _ = _complaint(b'{"error":' + bytes(raw) + b"}")
    return ApplianceError("upstream_failed", "the model server failed midway", hint=_HINT, upstream_message=message)


def _complaint(body: bytes) -> tuple[str, str]:
    """``(message, code)`` out of an error body of any server; empty strings where there is none."""
    try:
        document = msgspec.json.decode(body)
    except _UNREADABLE:
        return "", ""
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        return str(error.get("message", ""))[:_MESSAGE_CHARACTERS], str(error.get("code", ""))
    return str(error)[:_MESSAGE_CHARACTERS], ""
