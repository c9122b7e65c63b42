"""What an OpenAI-compatible endpoint says, decoded: server-sent events, whole completions, errors.

Pure: bytes in, values out. Owns the limits on lines and the translation of upstream errors; does not own connections or deadlines.
"""

from __future__ import annotations

from typing import Final

import msgspec

from appliance.contracts.llm.v1.api import Usage
from appliance.kit.errors import ApplianceError

_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_HINT: Final = "check the log of the model server and `appliance doctor`"
_MESSAGE_CHARACTERS: Final = 300


class _CachedDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class WireUsage(msgspec.Struct, frozen=True):
    """``usage`` of an answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _CachedDetails | None = None

    def counted(self) -> Usage:
        """The same in our words."""
        details = self.prompt_tokens_details
        return Usage(self.prompt_tokens, self.completion_tokens, (details.cached_tokens or 0) if details else 0)


class _Text(msgspec.Struct, frozen=True):
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """One choice of a chunk."""

    delta: _Text | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One server-sent event; ``failed`` when it carries an error in place of choices."""

    choices: list[ChunkChoice] = []
    usage: WireUsage | None = None
    error: msgspec.Raw = msgspec.Raw()

    @property
    def failed(self) -> bool:
        """Whether the upstream reports a failure midway."""
        return len(self.error) > 0 and self.error != b"null"


class _WholeChoice(msgspec.Struct, frozen=True):
    message: _Text | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole (not streamed) answer."""

    choices: list[_WholeChoice]
    usage: WireUsage | None = None


_chunk: Final = msgspec.json.Decoder(Chunk)
_completion: Final = msgspec.json.Decoder(Completion)


def garbage(what: str) -> ApplianceError:
    """The error for an endpoint that does not speak the protocol."""
    return ApplianceError("upstream_failed", f"the model server sent {what}", hint=_HINT)


class EventReader:
    """Cuts a byte stream into decoded chunks, wherever the network cut it.

    Invariants: a line is never longer than ``max_line_bytes``; after ``done`` nothing more is decoded.
    """

    __slots__ = ("_data", "_max_line_bytes", "_rest", "done")

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = b""
        self._data = b""
        self.done = False

    def feed(self, received: bytes) -> list[Chunk]:
        """Chunks that ``received`` completes; raises ``upstream_failed`` for what is no chunk."""
        lines = (self._rest + received if self._rest else received).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._max_line_bytes:
            raise garbage("an endless line")
        chunks: list[Chunk] = []
        for line in lines:
            if line.startswith(_DATA):
                self._data = self._data + b"\n" + line[5:] if self._data else line[5:]
            elif self._data and (not line or line == b"\r"):
                self._dispatch(chunks)
        return chunks

    def end(self) -> list[Chunk]:
        """What stands in the buffer when the body ends; some servers leave out the last blank line."""
        chunks = self.feed(b"\n\n")
        self.done = self.done or not chunks
        return chunks

    def _dispatch(self, chunks: list[Chunk]) -> None:
        data, self._data = self._data, b""
        if self.done:
            return
        if len(data) > self._max_line_bytes:
            raise garbage("an endless event")
        if data.strip() == _DONE:
            self.done = True
            return
        try:
            chunks.append(_chunk.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise garbage("an event that is not a chat completion chunk") from exc


def decode_completion(body: bytes) -> Completion:
    """A whole answer; raises ``upstream_failed`` for anything else."""
    try:
        completion = _completion.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise garbage("something that is not a chat completion") from exc
    if not completion.choices:
        raise garbage("a completion without choices")
    return completion


def upstream_error(status: int, body: bytes) -> ApplianceError:
    """What a refusal of the endpoint means to the caller. Its text is shown only where it speaks about the caller's request."""
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
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        return str(error.get("message", ""))[:_MESSAGE_CHARACTERS], str(error.get("code", ""))
    return str(error)[:_MESSAGE_CHARACTERS], ""
