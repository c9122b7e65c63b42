"""The body of a chat completion request: messages, tools, the answer's schema. Pure; sending it is in ``openai_chat_model``.

A schema goes as ``response_format`` of type ``json_schema``, which OpenAI, vLLM and llama-server know. ``guided_json`` is never sent: newer vLLM servers ignore it
without a word. An endpoint that is only *asked* for JSON (``structured_outputs = "asked"``) may ignore ``response_format`` as well, so there the schema is also told
in words; its caller checks the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import AnswerSchema, Capabilities, ChatRequest, Message, ToolSpec
from appliance.kit.errors import ApplianceError
from services.llm.grounded_prompt import prompt_messages

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_CHOICES: Final = frozenset({"auto", "none", "required"})
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}
_TOLD: Final = {
    "en": "Answer with one JSON value and nothing else: no explanation, no code fence. It must satisfy this JSON Schema:",
    "ru": "Ответь одним значением JSON и ничем больше: без пояснений и без ограды кода. Оно должно удовлетворять этой JSON Schema:",
}
encode: Final = msgspec.json.Encoder().encode


def check_capable(request: ChatRequest, can: Capabilities) -> None:
    """Nothing is silently ignored: what the endpoint cannot do is refused before it is asked.

    Raises:
        ApplianceError: ``schema_unsupported`` or ``invalid_request``.
    """
    if request.answer_schema is not None and can.schema == "none":
        raise ApplianceError(
            "schema_unsupported", "this model keeps no answer schema", hint='set structured_outputs = "asked" or "grammar" in models.toml'
        )
    if request.tools and request.tool_choice != "none" and not can.tools:
        raise ApplianceError("invalid_request", "this model takes no tools", hint="ask without tools, or set tools = true in models.toml")


def request_body(request: ChatRequest, model: str, can: Capabilities, *, streamed: bool) -> bytes:
    """JSON for ``POST /chat/completions``. Raises what :func:`check_capable` raises."""
    check_capable(request, can)
    body: dict[str, object] = {**request.options, "model": model, "messages": wire_messages(request, can), "stream": streamed}
    if streamed:
        body["stream_options"] = {"include_usage": True}
    if request.tools and can.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        choice = request.tool_choice
        body["tool_choice"] = choice if choice in _CHOICES else {"type": "function", "function": {"name": choice}}
    if (schema := request.answer_schema) is not None:
        name = _NOT_IN_NAMES.sub("_", schema.name)[:64] or "answer"
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": schema.schema, "strict": schema.strict}}
    return encode(body)


def wire_messages(request: ChatRequest, can: Capabilities) -> list[dict[str, Any]]:
    """The prompt in OpenAI form, calls and their results included."""
    messages: list[dict[str, Any]] = list(prompt_messages(request))
    _add_calls(messages, request.messages)
    if request.answer_schema is not None and can.schema == "asked":
        _tell(messages, request.answer_schema, request.language)
    return messages


def _add_calls(messages: list[dict[str, Any]], given: Sequence[Message]) -> None:
    """What the prompt leaves out of ``given``, which are its last messages."""
    before = len(messages) - len(given)
    for number, message in enumerate(given, before):
        if message.tool_calls:
            calls = [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls]
            messages[number] = {**messages[number], "content": message.content or None, "tool_calls": calls}
        if message.tool_call_id:
            messages[number] = {**messages[number], "tool_call_id": message.tool_call_id}


def _tell(messages: list[dict[str, Any]], schema: AnswerSchema, language: str) -> None:
    """The schema in the first system message: many chat templates take only one, and only in front."""
    told = f"{_TOLD.get(language, _TOLD['en'])}\n{encode(schema.schema).decode()}"
    if messages and messages[0]["role"] == "system":
        messages[0] = {**messages[0], "content": f"{messages[0]['content']}\n\n{told}"}
    else:
        messages.insert(0, {"role": "system", "content": told})


def _tool(tool: ToolSpec) -> dict[str, object]:
    """``strict`` is what makes vLLM constrain the arguments by grammar: without it ``auto`` calls are free text."""
    function: dict[str, object] = {"name": tool.name, "parameters": dict(tool.parameters) or _NO_PARAMETERS}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}
