"""The body of ``POST /v1/responses``: the subset that the ``openai`` client's default path uses, read into the request of chat completions.

Kept: ``input`` (text or items: messages, function calls and their outputs), ``instructions``, ``stream``, sampling, ``max_output_tokens``, function
tools, ``tool_choice``, ``text.format``, and our own fields. Refused by name: stored conversations, hosted tools, pictures, background answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.chat_request import (
    ChatCompletionRequest,
    FunctionName,
    Name,
    Role,
    StreamOptions,
    TextPart,
    WireFunction,
    WireFunctionCall,
    WireMessage,
    WireTool,
    WireToolCall,
    decode_json,
    too_long,
)
from services.gateway.error_bodies import invalid
from services.gateway.settings import GatewaySettings


class InputItem(msgspec.Struct, frozen=True):
    """A message, a function call or its output; which fields count depends on ``type``."""

    type: str = "message"
    role: Role | None = None
    content: str | list[TextPart] | None = None
    call_id: Name | None = None
    name: FunctionName | None = None
    arguments: str | None = None
    output: str | list[TextPart] | None = None


class FunctionTool(msgspec.Struct, frozen=True):
    """A function, flat as this API has it."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextSettings(msgspec.Struct, frozen=True):
    """``text``: the form of the answer."""

    format: dict[str, Any] | None = None


class ResponseRequest(msgspec.Struct, frozen=True):
    """The request; field names are OpenAI's, ours are ``spaces``, ``top_k``, ``document_ids``, ``thread_id``, ``agent``."""

    model: Name
    input: str | list[InputItem]
    instructions: str | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: TextSettings | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    spaces: Annotated[list[Name], Meta(max_length=1000)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=50)] | None = None
    document_ids: Annotated[list[Name], Meta(max_length=1000)] | None = None
    thread_id: Name | None = None
    agent: Name | None = None


_decoder: Final = msgspec.json.Decoder(ResponseRequest)


def decode_response_request(body: bytes, settings: GatewaySettings) -> ChatCompletionRequest:
    """The request in ``body``.

    Raises:
        ApplianceError: ``malformed_json``, ``invalid_request`` (with ``param``), ``context_length_exceeded``.
    """
    request = decode_json(body, _decoder)
    if request.previous_response_id is not None:
        raise invalid("answers are not stored under their id", "previous_response_id", hint="send the whole input, or use thread_id")
    for field in ("conversation", "prompt"):
        if getattr(request, field) is not None:
            raise invalid("nothing is stored under such a name", field, hint="send the whole input, or use thread_id")
    if request.background:
        raise invalid("background answers are not available", "background", hint="submit a task: POST /api/tasks")
    messages = _messages(request)
    if not messages:
        raise invalid("input is empty", "input")
    if len(messages) > settings.max_chat_messages:
        raise too_long(f"more than {settings.max_chat_messages} messages")
    return ChatCompletionRequest(
        model=request.model, messages=messages, stream=request.stream, stream_options=StreamOptions(include_usage=True),
        tools=_tools(request.tools), tool_choice=request.tool_choice, temperature=request.temperature, top_p=request.top_p,
        max_tokens=request.max_output_tokens, response_format=request.text.format if request.text else None, spaces=request.spaces,
        top_k=request.top_k, document_ids=request.document_ids, thread_id=request.thread_id, agent=request.agent,
    )  # fmt: skip


def responses_param(param: str) -> str:
    """A field of the chat request in the words of this API; what it is made of loses its place, which is not the caller's."""
    if param.startswith("messages"):
        return "input"
    if param.startswith("response_format"):
        return "text.format" + param.removeprefix("response_format").removeprefix(".json_schema")
    return param.replace("].function.", "].") if param.startswith("tools[") else param


def _messages(request: ResponseRequest) -> list[WireMessage]:
    messages = [WireMessage("system", request.instructions)] if request.instructions else []
    if isinstance(request.input, str):
        return [*messages, WireMessage("user", request.input)]
    for index, item in enumerate(request.input):
        _add(messages, item, index)
    return messages


def _add(messages: list[WireMessage], item: InputItem, index: int) -> None:
    where = f"input[{index}]"
    if item.type == "message":
        if item.role is None:
            raise invalid("a message needs a role", f"{where}.role")
        messages.append(WireMessage(item.role, _plain(item.content)))
    elif item.type == "function_call":
        if item.call_id is None or item.name is None:
            raise invalid("a function call needs call_id and name", where)
        call = WireToolCall(item.call_id, WireFunctionCall(item.name, item.arguments or "{}"))
        before = messages[-1] if messages and messages[-1].role == "assistant" else None  # what it said and what it asked for are one message
        if before is None:
            messages.append(WireMessage("assistant", None, [call]))
        else:
            messages[-1] = WireMessage("assistant", before.content, [*(before.tool_calls or ()), call])
    elif item.type == "function_call_output":
        messages.append(WireMessage("tool", _plain(item.output), tool_call_id=item.call_id))
    elif item.type != "reasoning":  # what a model thought before: this API's clients send it back, ours do not need it
        raise invalid(f"input of type {item.type[:40]!r} cannot be read", f"{where}.type")


def _plain(content: str | list[TextPart] | None) -> str | list[TextPart] | None:
    if isinstance(content, list):
        return [TextPart("text", part.text) if part.type in {"input_text", "output_text"} else part for part in content]
    return content


def _tools(tools: list[FunctionTool] | None) -> list[WireTool] | None:
    if tools is None:
        return None
    for index, tool in enumerate(tools):
        if tool.type != "function" or not tool.name:
            raise invalid(f"tools of type {tool.type[:40]!r} are not available", f"tools[{index}].type", hint="offer functions")
    return [WireTool("function", WireFunction(tool.name, tool.description, tool.parameters, tool.strict)) for tool in tools]
