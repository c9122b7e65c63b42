"""Server-sent events of a chat answer: OpenAI chunks as bytes, built from prefixes that are made once per answer.

One chunk per model token; the chunks of tokens that arrived together become one byte string, hence one write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.contracts.llm.v1.api import ToolCall, Usage
from services.gateway.asgi import Header, encode_json

DONE: Final = b"data: [DONE]\n\n"
HEADERS: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
_AFTER_CONTENT: Final = b'},"finish_reason":null}]}\n\n'


class ChunkWriter:
    """Chunks of one answer.

    Args:
        completion_id: ``chatcmpl-…``, plain ASCII.
        created: seconds since the epoch.
        model: name that the caller asked for.
    """

    __slots__ = ("_between", "_delta", "_head")

    def __init__(self, completion_id: str, created: int, model: str) -> None:
        self._head = b'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":%s,' % (
            completion_id.encode("ascii"),
            created,
            encode_json(model),
        )
        self._delta = self._head + b'"choices":[{"index":0,"delta":{"content":'
        self._between = _AFTER_CONTENT + self._delta

    def opening(self) -> bytes:
        """The chunk that names the role."""
        return self._head + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'

    def content(self, pieces: Sequence[str]) -> bytes:
        """One chunk per piece, in one byte string; ``pieces`` is not empty."""
        return self._delta + self._between.join([encode_json(piece) for piece in pieces]) + _AFTER_CONTENT

    def tool_calls(self, calls: Sequence[ToolCall]) -> bytes:
        """The chunk with the calls of the caller's tools, each whole."""
        return self._head + b'"choices":[{"index":0,"delta":{"tool_calls":%s},"finish_reason":null}]}\n\n' % encode_json(
            [{"index": index, **wire_tool_call(call)} for index, call in enumerate(calls)]
        )

    def annotations(self, annotations: object) -> bytes:
        """The chunk with the citations."""
        return self._head + b'"choices":[{"index":0,"delta":{"annotations":%s},"finish_reason":null}]}\n\n' % encode_json(annotations)

    def finish(self, reason: str, extra: bytes = b"") -> bytes:
        """The chunk that says why the answer ended; ``extra`` is spliced in as further members, each ending with a comma."""
        return self._head + extra + b'"choices":[{"index":0,"delta":{},"finish_reason":%s}]}\n\n' % encode_json(reason)

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that ``stream_options.include_usage`` asks for."""
        return self._head + b'"choices":[],"usage":%s}\n\n' % encode_json(wire_usage(usage))


def wire_tool_call(call: ToolCall) -> dict[str, object]:
    """A call in OpenAI's words."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def error_event(body: object) -> bytes:
    """An error after the stream has begun; OpenAI clients raise it."""
    return b"data: " + encode_json(body) + b"\n\n"


def named_event(name: str, data: object) -> bytes:
    """``event: name`` with JSON data, for streams that are not OpenAI's."""
    return b"event: %s\ndata: %s\n\n" % (name.encode("ascii"), encode_json(data))


def wire_usage(usage: Usage) -> dict[str, object]:
    """``usage`` in OpenAI's words."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
