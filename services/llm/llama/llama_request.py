"""A chat request in the words of llama.cpp's server. Pure.

Tools go to the chat template (``tools`` with ``tool_choice: none``), calls are constrained and read by this box: llama.cpp's own constraint is left out
where it does not recognise the template's form of a call, without a word (seen with 2026.10: ``tool_choice: required`` gave plain text).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import ChatRequest, Message, ToolSpec
from services.llm.grounded_prompt import prompt_messages
from services.llm.llama.call_reader import CallReader
from services.llm.llama.guided import TAG, answer_grammar, calls_grammar

_OPTIONS: Final = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty", "logit_bias",
    "ignore_eos",
)  # fmt: skip
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Asked:
    """The body, and how its answer is to be read.

    Attributes:
        body: JSON for ``/v1/chat/completions``.
        calls: looks for calls of tools; None when none can come.
        is_json: the whole answer is JSON.
    """

    body: bytes
    calls: CallReader | None
    is_json: bool


def asked(request: ChatRequest, chat_template: str) -> Asked:
    """Translate ``request`` for a model with this template.

    Raises:
        ApplianceError: ``schema_unsupported``.
    """
    options = {name: request.options[name] for name in _OPTIONS if request.options.get(name) is not None}
    if "max_tokens" not in options and request.options.get("max_completion_tokens") is not None:
        options["max_tokens"] = request.options["max_completion_tokens"]
    body: dict[str, Any] = {
        **options,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
    }
    offered = [] if request.tool_choice == "none" else list(request.tools)
    calls: CallReader | None = None
    if request.tools:
        body |= {"tools": [_tool(tool) for tool in request.tools], "tool_choice": "none"}
    if offered and (request.answer_schema is None or request.tool_choice != "auto"):
        tagged = TAG in chat_template
        certain = request.tool_choice != "auto"
        calls = CallReader([tool.name for tool in offered], certain=certain)
        if tagged or certain:
            body["grammar"] = calls_grammar(offered, request.tool_choice, tagged=tagged)
    elif request.answer_schema is not None:
        body["grammar"] = answer_grammar(request.answer_schema)
    if "grammar" in body:
        body["chat_template_kwargs"] = {"enable_thinking": False}  # a grammar has no room for thoughts
    return Asked(_encode(body), calls, is_json="grammar" in body and calls is None)


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [dict(message) for message in prompt_messages(request)]
    for told, message in zip(reversed(messages), reversed(request.messages), strict=False):
        told.update(_links(message))
    return messages


def _links(message: Message) -> dict[str, Any]:
    """What ties calls and their results together."""
    if message.role == "tool":
        return {"tool_call_id": message.tool_call_id}
    if not message.tool_calls:
        return {}
    calls = [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls]
    return {"tool_calls": calls}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": parameters}}
