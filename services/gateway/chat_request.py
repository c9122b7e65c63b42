"""The body of ``POST /v1/chat/completions``, decoded and checked by msgspec (no pydantic here: this is the hot path).

Unknown fields are tolerated, as OpenAI does; wrong types and values are a 400 that names the field in ``param``; what the box cannot
do (several choices, audio, pictures) is refused rather than ignored. What tools and schemas mean is in ``chat_tools``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from appliance.contracts.llm.v1.api import Message, ToolCall
from appliance.kit.errors import ApplianceError
from services.gateway.error_bodies import invalid
from services.gateway.settings import GatewaySettings

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
FunctionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_T = TypeVar("_T")
_PLACE: Final = re.compile(r" - at `\$?\.?([^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `([^`]+)`")


class TextPart(msgspec.Struct, frozen=True):
    """A part of a message; only text can be read."""

    type: str
    text: str | None = None


class WireFunctionCall(msgspec.Struct, frozen=True):
    """What an assistant asked to be called."""

    name: Name
    arguments: Annotated[str, Meta(max_length=1_000_000)] = "{}"


class WireToolCall(msgspec.Struct, frozen=True):
    """A call in an assistant's message."""

    id: Name
    function: WireFunctionCall
    type: str = "function"


class WireMessage(msgspec.Struct, frozen=True):
    """One message of the request."""

    role: Role
    content: str | list[TextPart] | None = None
    tool_calls: Annotated[list[WireToolCall], Meta(max_length=128)] | None = None
    tool_call_id: Name | None = None


class WireFunction(msgspec.Struct, frozen=True):
    """A function that the caller offers."""

    name: FunctionName
    description: Annotated[str, Meta(max_length=20_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class WireTool(msgspec.Struct, frozen=True):
    """A tool that the caller offers; functions only."""

    type: str
    function: WireFunction


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``."""

    include_usage: bool | None = None


class ChatCompletionRequest(msgspec.Struct, frozen=True):
    """The request; field names are OpenAI's, ours are ``spaces``, ``top_k``, ``document_ids``, ``thread_id``, ``agent``."""

    model: Name
    messages: list[WireMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    tools: Annotated[list[WireTool], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    logprobs: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Annotated[str, Meta(max_length=1000)] | Annotated[list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=16)] | None = None
    response_format: dict[str, Any] | None = None
    spaces: Annotated[list[Name], Meta(max_length=1000)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=50)] | None = None
    document_ids: Annotated[list[Name], Meta(max_length=1000)] | None = None
    thread_id: Name | None = None
    agent: Name | None = None


_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop")
_decoder: Final = msgspec.json.Decoder(ChatCompletionRequest)


def decode_chat_request(body: bytes, settings: GatewaySettings) -> ChatCompletionRequest:
    """The request in ``body``.

    Raises:
        ApplianceError: ``malformed_json``, ``invalid_request`` (with ``param``), ``context_length_exceeded``.
    """
    request = decode_json(body, _decoder)
    if not request.messages:
        raise invalid("messages is empty", "messages")
    if len(request.messages) > settings.max_chat_messages:
        raise too_long(f"more than {settings.max_chat_messages} messages")
    if request.n is not None and request.n != 1:
        raise invalid("only n=1 is possible", "n")
    if request.logprobs:
        raise invalid("logprobs are not available", "logprobs")
    return request


def plain_messages(request: ChatCompletionRequest, settings: GatewaySettings) -> list[Message]:
    """Messages as text. Raises ``invalid_request`` for pictures and sound, ``context_length_exceeded`` for too much text."""
    messages = [_message(wire, index) for index, wire in enumerate(request.messages)]
    _check_results(messages)
    if sum([len(message.content) for message in messages]) > settings.max_chat_characters:
        raise too_long(f"more than {settings.max_chat_characters} characters")
    if messages[-1].role not in {"user", "tool"}:
        raise invalid("the last message must come from the user or from a tool", f"messages[{len(messages) - 1}].role")
    if messages[-1].role == "user" and not messages[-1].content.strip():
        raise invalid("the last message is empty", f"messages[{len(messages) - 1}].content")
    return messages


def sampling_options(request: ChatCompletionRequest) -> dict[str, object]:
    """Options for the model, those that were given. ``stream: False`` tells an HTTP model that it may answer whole."""
    options: dict[str, object] = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    limit = request.max_completion_tokens or request.max_tokens
    if limit is not None:
        options["max_tokens"] = limit
    if not request.stream:
        options["stream"] = False
    return options


def decode_json(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode with errors in our words."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _refusal(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ApplianceError("malformed_json", "the body is not valid JSON", hint=str(exc)[:200]) from exc


def too_long(what: str) -> ApplianceError:
    """``context_length_exceeded`` on ``messages``."""
    return ApplianceError("context_length_exceeded", f"the conversation is too long: {what}", hint="leave out old messages", param="messages")


def _message(wire: WireMessage, index: int) -> Message:
    role = "system" if wire.role == "developer" else wire.role
    text = _text(wire, index)
    if role == "tool" and wire.tool_call_id is None:
        raise invalid("a tool's message needs tool_call_id", f"messages[{index}].tool_call_id")
    if wire.tool_calls is None and wire.tool_call_id is None:
        return Message(role, text)
    if wire.tool_calls is not None and role != "assistant":
        raise invalid("only an assistant's message has tool_calls", f"messages[{index}].tool_calls")
    calls = tuple([ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls or ()])
    return Message(role, text, calls, wire.tool_call_id or "")


def _check_results(messages: Sequence[Message]) -> None:
    """A tool's message answers a call that an assistant's message before it made."""
    made: set[str] = set()
    for index, message in enumerate(messages):
        made.update([call.id for call in message.tool_calls])
        if message.role == "tool" and message.tool_call_id not in made:
            raise invalid("this result answers no call of an earlier message", f"messages[{index}].tool_call_id", hint="send the message with tool_calls too")


def _text(wire: WireMessage, index: int) -> str:
    if isinstance(wire.content, str):
        return wire.content
    parts = wire.content or []
    for position, part in enumerate(parts):
        if part.type not in {"text", "input_text", "refusal"}:
            raise invalid(f"content of type {part.type[:40]!r} cannot be read", f"messages[{index}].content[{position}].type", hint="send text")
    return "\n".join([part.text for part in parts if part.text])


def _refusal(complaint: str) -> ApplianceError:
    place = _PLACE.search(complaint)
    param = place.group(1) if place else ""
    missing = _MISSING.search(complaint)
    if missing:
        param = f"{param}.{missing.group(1)}" if param else missing.group(1)
    message = _PLACE.sub("", complaint).replace("`", "'")
    return invalid(f"{param}: {message}" if param else message, param or None)
