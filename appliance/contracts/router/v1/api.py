"""The chat turn, version 1: what the gateway asks and the events it streams to people."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.contracts.llm.v1.api import Message, Usage
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
    """

    messages: Sequence[Message]
    model: str = "default"
    spaces: tuple[str, ...] | None = None
    top_k: int = 5
    document_ids: tuple[str, ...] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something happened on the way (``search``, ``generate``), for people and traces."""

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
class DoneEvent:
    """The end of a turn."""

    finish_reason: str
    usage: Usage
    model: str
    refused: bool = False
    invented_citations: int = 0


ChatEvent = StepEvent | TokenEvent | CitationEvent | DoneEvent


class Router(Protocol):
    """Answers chat turns."""

    def chat(self, turn: ChatTurn, principal: Principal) -> AsyncGenerator[ChatEvent, None]:
        """Stream one turn; ends with exactly one :class:`DoneEvent` or raises ApplianceError."""
        ...
