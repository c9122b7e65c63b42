"""Names of attributes on spans: OpenTelemetry's GenAI conventions where they have one (``gen_ai.*``, ``error.type``, ``user.id``), ``appliance.*`` where not.

Langfuse reads the model, tokens, cost, session and user from these; ``langfuse.observation.type`` tells it what a span is. The conventions are still "development"
(semantic-conventions-genai, schema 1.42): this module is the one place to follow them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, Literal

Kind = Literal["generation", "retriever", "tool", "guardrail", "agent", "span"]
KIND: Final = "langfuse.observation.type"
REQUEST: Final = "appliance.request_id"
VERSION: Final = "appliance.model.version"
SOURCES: Final = "appliance.sources"
PASSAGES: Final = "appliance.passages"
SCHEMA: Final = "appliance.schema.digest"
SCHEMA_NAME: Final = "appliance.schema.name"
INPUT: Final = "gen_ai.input.messages"
OUTPUT: Final = "gen_ai.output.messages"
AGENT: Final = "gen_ai.agent.name"
THREAD: Final = "gen_ai.conversation.id"
SESSION: Final = "session.id"
USER: Final = "user.id"
TASK: Final = "appliance.task_id"
TOOL: Final = "gen_ai.tool.name"
TOOL_CALL: Final = "gen_ai.tool.call.id"
TOOL_SOURCE: Final = "appliance.tool.source"
OUTCOME: Final = "appliance.outcome"
_MOST_SOURCES: Final = 64
_OPTIONS: Final = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "seed": "seed"}


def of_model(kind: Kind, operation: str, alias: str, version: str) -> dict[str, str]:
    """Who is asked: alias and exact version."""
    return {KIND: kind, "gen_ai.operation.name": operation, "gen_ai.provider.name": "appliance", "gen_ai.request.model": alias, VERSION: version}


def of_options(options: Mapping[str, object]) -> dict[str, int | float]:
    """Sampling options, by their names in the conventions."""
    return {
        f"gen_ai.request.{name}": value
        for option, name in _OPTIONS.items()
        if isinstance(value := options.get(option), int | float) and not isinstance(value, bool)
    }


def of_usage(prompt: int, completion: int, cached: int, cost: float | None) -> dict[str, int | float]:
    """Tokens, and money in the currency of models.toml (None = not known here); cached tokens are part of the prompt's."""
    usage: dict[str, int | float] = {
        "gen_ai.usage.input_tokens": prompt, "gen_ai.usage.output_tokens": completion, "gen_ai.usage.cache_read.input_tokens": cached,
    }
    return usage if cost is None else {**usage, "gen_ai.usage.cost": cost}


def of_answer(model: str, reason: str) -> dict[str, str | tuple[str, ...]]:
    """Who answered in the end, and why it ended."""
    return {"gen_ai.response.model": model, "gen_ai.response.finish_reasons": (reason,)}


def messages(said: Iterable[tuple[str, str]]) -> str:
    """Messages as the conventions write them, JSON; only for :data:`INPUT` and :data:`OUTPUT`, when content may go out."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in said], ensure_ascii=False)


def distinct(documents: Iterable[str]) -> tuple[str, ...]:
    """Document ids, each once, in order; at most 64."""
    return tuple(dict.fromkeys(documents))[:_MOST_SOURCES]
