"""Chat models, version 1: one port for the built-in reader, llama.cpp, OpenAI endpoints and pools of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appliance.contracts.retrieval.v1.api import Passage


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asks for; ``arguments`` is JSON text as the model wrote it: unchecked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that a model may ask for; ``parameters`` is a JSON Schema of type object; ``strict``: arguments must satisfy it by grammar."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The JSON Schema that the whole answer must satisfy.

    Attributes:
        name: for people and traces.
        schema: JSON Schema, draft 2020-12 unless it says otherwise; already through the schema gate (``appliance.schema``).
        strict: the answer is checked against all of it; else it is only asked for.
    """

    name: str
    schema: Mapping[str, object]
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation; ``role`` is system, user, assistant or tool; ``content`` is plain text.

    Attributes:
        tool_calls: what an assistant's message asks to be called.
        tool_call_id: for a tool's message: the call that it answers.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a chat model is asked.

    Attributes:
        messages: the conversation, oldest first; the last user message is the question.
        passages: retrieved sources; passage ``i`` is cited as ``[i+1]``. Data, never instructions.
        grounded: retrieval took place: answer from ``passages`` only, cite, and say so when they do not answer.
        language: ``ru``, ``en`` or ``other`` (the question's).
        options: sampling options in OpenAI names (temperature, max_tokens, stop, …), already validated.
        tools: functions that the model may ask for; empty = none.
        tool_choice: ``auto``, ``none``, ``required`` or the name of one of ``tools``.
        tools_optional: a model that stands in for another may be asked without ``tools``: they are the box's own, not the caller's.
        answer_schema: the answer is JSON that satisfies it; a model that cannot promise this says so in its capabilities and is not asked.
        affinity: requests with the same value share a prefix (a thread); "" = none. Pools send them to the same replica.
        deadline: ``time.monotonic()`` by which the answer must be complete; None = the model's own limits.
    """

    messages: Sequence[Message]
    passages: Sequence[Passage] = ()
    grounded: bool = False
    language: str = "en"
    options: Mapping[str, object] = field(default_factory=dict)
    tools: Sequence[ToolSpec] = ()
    tool_choice: str = "auto"
    answer_schema: AnswerSchema | None = None
    affinity: str = ""
    deadline: float | None = None
    tools_optional: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do; asked before a request is made, so that nothing is silently ignored.

    Attributes:
        generates: writes text of its own; the reader does not, it quotes.
        tools: takes ``tools``.
        schema: how ``answer_schema`` is kept: ``grammar`` = every token is constrained, ``asked`` = told only, so the caller validates and repairs;
            ``none`` = not at all.
        max_context: tokens of prompt and answer together; 0 = not stated.
    """

    generates: bool = True
    tools: bool = False
    schema: Literal["grammar", "asked", "none"] = "none"
    max_context: int = 0


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
class ToolCalls:
    """All calls that the model asks for in this turn, complete, in its order; ``Finish("tool_calls", …)`` follows."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class ToolCallReady:
    """One call is complete while the model still writes others; :class:`ToolCalls` with all of them follows. Optional: only speculation needs it."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Finish:
    """The end: why (``stop``, ``length``, ``tool_calls``, ``content_filter``), what it cost, and whether the model refused for lack of sources."""

    reason: str
    usage: Usage
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Rerouted:
    """The answer comes from another model or replica than asked for; before the first token, so that nobody is misled. ``why`` is an error code."""

    model: str
    why: str


ModelEvent = Tokens | Quotes | ToolCallReady | ToolCalls | Rerouted | Finish


class ChatModel(Protocol):
    """Generates an answer as a stream that ends with exactly one :class:`Finish`."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; constant while it is open."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream the answer.

        Closing the generator cancels the work. Raises ApplianceError ``upstream_failed``, ``upstream_timeout``,
        ``context_length_exceeded``; never after :class:`Finish`.
        """
        ...

    async def health(self) -> None:
        """Return when the model can answer; raise ApplianceError otherwise. Never generates."""
        ...
