"""The chat turn, version 1: what the gateway asks and the events it streams to people."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.contracts.llm.v1.api import AnswerSchema, Message, ToolCall, ToolSpec, Usage
from appliance.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One question with its context.

    Attributes:
        messages: conversation, oldest first, the last one from the user.
        model: alias in models.toml (``default``).
        spaces: where to look; None = every readable space; () = no retrieval.
        top_k: passages to offer the model.
        options: sampling options in OpenAI names.
        trace_id: correlation id.
        tools: functions of the caller: their calls go back to the caller, the box runs none of them.
        tool_choice: see ``ChatRequest``.
        answer_schema: the answer must be JSON that satisfies it.
        thread_id: the thread that the turn belongs to; "" = none.
        agent: who answers; "" = the box decides.
        task_id: the task that the turn is done for; "" = none.
        deadline: ``time.monotonic()`` by which the answer must be complete; None = the model's own limits.
    """

    messages: Sequence[Message]
    model: str = "default"
    spaces: tuple[str, ...] | None = None
    top_k: int = 5
    document_ids: tuple[str, ...] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    trace_id: str = ""
    tools: Sequence[ToolSpec] = ()
    tool_choice: str = "auto"
    answer_schema: AnswerSchema | None = None
    thread_id: str = ""
    agent: str = ""
    task_id: str = ""
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something happened on the way, for people and traces.

    ``route`` (agent, confidence, level), ``search``, ``fit`` (passages that were left, the model's context being small), ``tool`` (name, code, seconds), ``reroute`` (model, why), ``ask`` (options), ``guard`` (findings).
    """

    name: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """Pieces of checked answer text, model boundaries kept."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CitationEvent:
    """``[number]`` in the answer and the place it points to.

    ``start``/``end`` are character offsets of ``quote`` in the document's Markdown text.
    """

    number: int
    document_id: str
    document_name: str
    space: str
    version: int
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class ToolCallsEvent:
    """Calls of the caller's own tools; the caller answers them in its next request."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """The end of a turn.

    Attributes:
        model: who answered in the end (alias).
        invented_citations: marks that pointed nowhere and were taken out.
        agent: who answered.
        cached: the answer came from the box's cache; ``usage`` is what it had cost, and nothing was spent now.
        tool_calls: how many tools the box ran.
    """

    finish_reason: str
    usage: Usage
    model: str
    refused: bool = False
    invented_citations: int = 0
    agent: str = ""
    cached: bool = False
    tool_calls: int = 0


ChatEvent = StepEvent | TokenEvent | CitationEvent | ToolCallsEvent | DoneEvent


class Router(Protocol):
    """Answers chat turns."""

    def chat(self, turn: ChatTurn, principal: Principal) -> AsyncGenerator[ChatEvent, None]:
        """Stream one turn; ends with exactly one :class:`DoneEvent` or raises ApplianceError."""
        ...
