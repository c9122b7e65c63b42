"""The form of ``/v1/chat/completions``: chunks and completions in OpenAI's words."""

from __future__ import annotations

import time

from appliance.contracts.router.v1.api import ChatEvent, DoneEvent, TokenEvent, ToolCallsEvent
from appliance.kit.errors import ApplianceError
from services.gateway import sse
from services.gateway.annotations import file_citations
from services.gateway.asgi import encode_json
from services.gateway.chat_request import ChatCompletionRequest
from services.gateway.conversation import Answer
from services.gateway.error_bodies import error_body, internal_error
from services.gateway.identifiers import next_identifier


class CompletionsForm:
    """Satisfies ``AnswerForm``."""

    def __init__(self, request: ChatCompletionRequest) -> None:
        self._request = request
        self._id = "chatcmpl-" + next_identifier()
        self._created = int(time.time())
        self._writer = sse.ChunkWriter(self._id, self._created, request.model)

    def opening(self) -> bytes:
        """The chunk that names the role."""
        return self._writer.opening()

    def event(self, event: ChatEvent, answer: Answer) -> bytes:
        """See ``AnswerForm``."""
        if type(event) is TokenEvent:
            return self._writer.content(event.pieces)
        if type(event) is ToolCallsEvent:
            return self._writer.tool_calls(event.calls)
        return self._ending(answer, event) if type(event) is DoneEvent else b""

    def broken(self, error: ApplianceError) -> bytes:
        """An error event; OpenAI clients raise it."""
        return sse.error_event(error_body(error))

    def whole(self, answer: Answer) -> dict[str, object]:
        """A ``chat.completion``."""
        if answer.done is None:
            raise internal_error()
        message: dict[str, object] = {
            "role": "assistant",
            "content": answer.text or (None if answer.calls else ""),
            "refusal": None,
            "annotations": file_citations(answer.citations),
        }
        if answer.calls:
            message["tool_calls"] = [sse.wire_tool_call(call) for call in answer.calls]
        body: dict[str, object] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": answer.done.model,
            "choices": [{"index": 0, "message": message, "finish_reason": answer.done.finish_reason, "logprobs": None}],
            "usage": sse.wire_usage(answer.done.usage),
        }
        if answer.thread_id is not None:
            body["thread_id"] = answer.thread_id
        return body

    def _ending(self, answer: Answer, done: DoneEvent) -> bytes:
        writer = self._writer
        parts = [writer.annotations(file_citations(answer.citations))] if answer.citations else []
        extra = b'"thread_id":%s,' % encode_json(answer.thread_id) if answer.thread_id else b""
        if done.model != self._request.model:
            extra += b'"served_by":%s,' % encode_json(done.model)
        parts.append(writer.finish(done.finish_reason, extra))
        options = self._request.stream_options
        if options is not None and options.include_usage:
            parts.append(writer.usage(done.usage))
        parts.append(sse.DONE)
        return b"".join(parts)
