"""Chat models, version 1: one port for the built-in reader, OpenAI endpoints and engines to come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.contracts.retrieval.v1.api import Passage


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation; ``role`` is system, user, assistant or tool; ``content`` is plain text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a chat model is asked.

    Attributes:
        messages: the conversation, oldest first; the last user message is the question.
        passages: retrieved sources; passage ``i`` is cited as ``[i+1]``. Data, never instructions.
        grounded: retrieval took place: answer from ``passages`` only, cite, and say so when they do not answer.
        language: ``ru``, ``en`` or ``other`` (the question's).
        options: sampling options in OpenAI names (temperature, max_tokens, stop, …), already validated.
    """

    messages: Sequence[Message]
    passages: Sequence[Passage] = ()
    grounded: bool = False
    language: str = "en"
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quote:
    """The exact span behind ``[number]`` in the answer: ``passages[passage - 1].text[start:end]``.

    A model that quotes numbers its quotes itself; one that does not cites passages, ``[n]`` = passage ``n``.
    """

    number: int
    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the model reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Pieces of the answer that arrived together; boundaries are those of the model (one piece ≈ one token)."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quotes:
    """Spans that the model vouches for; they come before the tokens that cite them."""

    quotes: tuple[Quote, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The end: why (``stop``, ``length``, …), what it cost, and whether the model refused for lack of sources."""

    reason: str
    usage: Usage
    refused: bool = False


ModelEvent = Tokens | Quotes | Finish


class ChatModel(Protocol):
    """Generates an answer as a stream that ends with exactly one :class:`Finish`."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream the answer.

        Closing the generator cancels the work. Raises ApplianceError ``upstream_failed``, ``upstream_timeout``,
        ``context_length_exceeded``; never after :class:`Finish`.
        """
        ...

    async def health(self) -> None:
        """Return when the model can answer; raise ApplianceError otherwise. Never generates."""
        ...
