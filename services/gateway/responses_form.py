"""The form of ``/v1/responses``: typed events and response objects in OpenAI's words.

One message item for the text, then one item per function call. Every event carries its sequence number; the object in ``response.completed`` is what a
request without ``stream`` gets.
"""

from __future__ import annotations

import time
from typing import Final

from appliance.contracts.llm.v1.api import ToolCall, Usage
from appliance.contracts.router.v1.api import ChatEvent, CitationEvent, DoneEvent, TokenEvent, ToolCallsEvent
from appliance.kit.errors import ApplianceError
from services.gateway import sse
from services.gateway.chat_request import ChatCompletionRequest, WireFunction
from services.gateway.conversation import Answer
from services.gateway.error_bodies import error_body, internal_error
from services.gateway.identifiers import next_identifier

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
Item = dict[str, object]


class ResponsesForm:
    """Satisfies ``AnswerForm``."""

    def __init__(self, request: ChatCompletionRequest) -> None:
        self._request = request
        self._id = "resp_" + next_identifier()
        self._item = "msg_" + next_identifier()
        self._created = int(time.time())
        self._sequence = 0
        self._talks = False

    def opening(self) -> bytes:
        """Nothing: ``created`` and ``in_progress`` come with the first event, so that sequence numbers are in order."""
        return b""

    def event(self, event: ChatEvent, answer: Answer) -> bytes:
        """See ``AnswerForm``."""
        if type(event) is TokenEvent:
            return self._begun() + self._message_begun() + self._delta("".join(event.pieces))
        if type(event) is ToolCallsEvent:
            return self._begun() + self._message_ended(answer) + b"".join(
                [self._call(call, index + self._talks) for index, call in enumerate(event.calls)]
            )
        return self._begun() + self._ending(answer) if type(event) is DoneEvent else b""

    def broken(self, error: ApplianceError) -> bytes:
        """``error`` with the code, then ``response.failed``."""
        problem: Item = {"code": error.code, "message": error.message, "param": None}
        failed = {**self._response("failed", [], None), "error": {"code": "server_error", "message": error.message}}
        return self._event("error", {**problem, "error": error_body(error).error}) + self._event("response.failed", {"response": failed})

    def whole(self, answer: Answer) -> dict[str, object]:
        """A ``response``."""
        done = answer.done
        if done is None:
            raise internal_error()
        output: list[Item] = []
        if answer.text or not answer.calls:
            output.append(self._message(answer))
        output += [_call_item(call) for call in answer.calls]
        reason = _INCOMPLETE.get(done.finish_reason)
        body = self._response("incomplete" if reason else "completed", output, done.usage)
        if reason:
            body["incomplete_details"] = {"reason": reason}
        if answer.thread_id is not None:
            body["thread_id"] = answer.thread_id
        return body

    def _begun(self) -> bytes:
        if self._sequence:
            return b""
        response = self._response("in_progress", [], None)
        return self._event("response.created", {"response": response}) + self._event("response.in_progress", {"response": response})

    def _message_begun(self) -> bytes:
        if self._talks:
            return b""
        self._talks = True
        item = {"id": self._item, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        return self._event("response.output_item.added", {"output_index": 0, "item": item}) + self._event(
            "response.content_part.added", {"item_id": self._item, "output_index": 0, "content_index": 0, "part": part}
        )

    def _delta(self, text: str) -> bytes:
        return self._event(
            "response.output_text.delta", {"item_id": self._item, "output_index": 0, "content_index": 0, "delta": text, "logprobs": []}
        )

    def _message_ended(self, answer: Answer) -> bytes:
        if not self._talks:
            return b""
        place: Item = {"item_id": self._item, "output_index": 0, "content_index": 0}
        marks = [
            self._event("response.output_text.annotation.added", {**place, "annotation_index": index, "annotation": _annotation(citation, answer.text)})
            for index, citation in enumerate(answer.citations)
        ]
        return b"".join(
            [
                *marks,
                self._event("response.output_text.done", {**place, "text": answer.text, "logprobs": []}),
                self._event("response.content_part.done", {**place, "part": _part(answer)}),
                self._event("response.output_item.done", {"output_index": 0, "item": self._message(answer)}),
            ]
        )

    def _call(self, call: ToolCall, index: int) -> bytes:
        item = _call_item(call)
        place: Item = {"item_id": item["id"], "output_index": index}
        return b"".join(
            [
                self._event("response.output_item.added", {"output_index": index, "item": {**item, "arguments": "", "status": "in_progress"}}),
                self._event("response.function_call_arguments.delta", {**place, "delta": call.arguments}),
                self._event("response.function_call_arguments.done", {**place, "arguments": call.arguments, "name": call.name}),
                self._event("response.output_item.done", {"output_index": index, "item": item}),
            ]
        )

    def _ending(self, answer: Answer) -> bytes:
        closing = b"" if answer.calls else self._message_begun() + self._message_ended(answer)
        response = self.whole(answer)
        return closing + self._event(f"response.{response['status']}", {"response": response})

    def _message(self, answer: Answer) -> Item:
        cut = answer.done is not None and answer.done.finish_reason in _INCOMPLETE
        return {
            "id": self._item,
            "type": "message",
            "status": "incomplete" if cut else "completed",
            "role": "assistant",
            "content": [_part(answer)],
        }

    def _response(self, status: str, output: list[Item], usage: Usage | None) -> dict[str, object]:
        request = self._request
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": request.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": request.temperature,
            "tool_choice": request.tool_choice or "auto",
            "tools": [_tool(one.function) for one in request.tools or ()],
            "text": {"format": request.response_format or {"type": "text"}},
            "top_p": request.top_p,
            "usage": None if usage is None else _wire_usage(usage),
        }

    def _event(self, kind: str, data: Item) -> bytes:
        numbered = {"type": kind, "sequence_number": self._sequence, **data}
        self._sequence += 1
        return sse.named_event(kind, numbered)


def _tool(function: WireFunction) -> Item:
    return {
        "type": "function",
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
        "strict": bool(function.strict),
    }


def _part(answer: Answer) -> Item:
    return {"type": "output_text", "text": answer.text, "annotations": [_annotation(one, answer.text) for one in answer.citations], "logprobs": []}


def _annotation(citation: CitationEvent, text: str) -> Item:
    """``index`` is the place of the mark in the text, as this API counts; ``number`` is ours."""
    mark = f"[{citation.number}]"
    return {
        "type": "file_citation",
        "index": max(0, text.find(mark)),
        "file_id": citation.document_id,
        "filename": citation.document_name,
        "number": citation.number,
        "space": citation.space,
        "page": citation.page,
        "quote": citation.quote,
    }


def _call_item(call: ToolCall) -> Item:
    return {"id": f"fc_{call.id}", "type": "function_call", "status": "completed", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _wire_usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
