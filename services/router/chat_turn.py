"""One chat turn: search → model → citation check → events. The way is written down in docs/tours/chat.md."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Final

from appliance.contracts.llm.v1.api import ChatModel, ChatRequest, Finish, Message, Quote, Quotes, Tokens
from appliance.contracts.retrieval.v1.api import Passage, Retrieval, SearchQuery, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, StepEvent, TokenEvent
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.telemetry import span
from appliance.language.query import analyse_query
from services.router import metrics
from services.router.citations import CitationFilter

_NOTHING_FOUND: Final = SearchResult((), "other", {})
_ENOUGH_TERMS: Final = 3


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A chat model under its alias.

    Attributes:
        grounded_only: it can do nothing without sources (the reader).
        hold: keeps the model open for the length of a block; a turn holds its model to its end, whatever the alias means by then.
        meters: its metrics.
    """

    alias: str
    model: ChatModel
    grounded_only: bool = False
    hold: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, compare=False)
    meters: metrics.Meters = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meters", metrics.Meters.of(self.alias))


class ChatRouter:
    """Implements the ``Router`` contract. ``models`` may change between turns: a turn looks its model up once."""

    def __init__(self, models: Mapping[str, ServedModel], retrieval: Retrieval) -> None:
        self._models = models
        self._retrieval = retrieval

    async def chat(self, turn: ChatTurn, principal: Principal) -> AsyncGenerator[ChatEvent, None]:
        """See the contract."""
        started = time.perf_counter()
        served = self._served(turn)
        question = _question(turn.messages)
        with served.hold(), span("chat.turn", {"model": served.alias}):
            found = _NOTHING_FOUND
            grounded = self._wants_sources(turn, principal, served)
            if grounded:
                found = await self._retrieval.search(SearchQuery(question, turn.spaces, turn.top_k, turn.document_ids), principal)
                yield StepEvent("search", _search_detail(found))
            request = ChatRequest(turn.messages, found.passages, grounded, found.language, turn.options)
            async with aclosing(self._answer(served, request, started)) as answer:
                async for event in answer:
                    yield event

    def _served(self, turn: ChatTurn) -> ServedModel:
        if not turn.messages or turn.messages[-1].role not in {"user", "tool"}:
            raise ApplianceError("invalid_request", "the last message must be the user's", hint="send messages oldest first")
        served = self._models.get(turn.model)
        if served is None:
            raise ApplianceError("model_not_found", f"model {turn.model!r} not found", hint="GET /v1/models lists the models of this box")
        return served

    def _wants_sources(self, turn: ChatTurn, principal: Principal, served: ServedModel) -> bool:
        """Whether to search: unless the caller said no, or there is nothing to find and the model can do without."""
        readable = principal.readable(turn.spaces)
        if turn.spaces and set(turn.spaces) - readable:
            raise not_found("space")
        if turn.spaces == ():
            return served.grounded_only
        return served.grounded_only or self._retrieval.has_documents(readable)

    async def _answer(self, served: ServedModel, request: ChatRequest, started: float) -> AsyncGenerator[ChatEvent, None]:
        checked = CitationFilter(range(1, len(request.passages) + 1))
        sources = _Sources(request.passages)
        called = time.perf_counter()
        first, finish, outcome = True, None, "cancelled"
        try:
            with span("llm.generate", {"model": served.alias, "passages": len(request.passages)}) as current:
                async with aclosing(served.model.stream(request)) as events:
                    async for event in events:
                        if isinstance(event, Tokens):
                            if first:
                                served.meters.first_token.observe(time.perf_counter() - started)
                                first = False
                            pieces = checked.feed(event.pieces)
                            for citation in sources.new(checked.used):
                                yield citation
                            if pieces:
                                yield TokenEvent(pieces)
                        elif isinstance(event, Quotes):
                            sources.quotes = {quote.number: quote for quote in event.quotes}
                            checked.allow(sources.quotes)
                        elif isinstance(event, Finish):
                            finish = event
                if finish is None:
                    raise ApplianceError("upstream_failed", "the model ended without finishing", hint="check the model server")
                if rest := checked.close():
                    yield TokenEvent((rest,))
                for citation in sources.new(checked.used):
                    yield citation
                current.set_attribute("completion_tokens", finish.usage.completion_tokens)
            outcome = "ok"
        except ApplianceError as exc:
            outcome = exc.code
            raise
        finally:
            (served.meters.ok if outcome == "ok" else metrics.llm_requests.labels(served.alias, outcome)).inc()
            served.meters.seconds.observe(time.perf_counter() - called)
        _count(served.meters, finish, checked)
        yield DoneEvent(finish.reason, finish.usage, served.alias, finish.refused, checked.invented)


class _Sources:
    """Turns used numbers into citation events, each once."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._shown = 0
        self.quotes: dict[int, Quote] | None = None

    def new(self, used: Sequence[int]) -> list[CitationEvent]:
        """Events for the numbers of ``used`` that were not shown yet."""
        fresh, self._shown = used[self._shown :], len(used)
        return [self._event(number) for number in fresh]

    def _event(self, number: int) -> CitationEvent:
        if self.quotes is None:
            passage, start, end = self._passages[number - 1], 0, len(self._passages[number - 1].text)
        else:
            quote = self.quotes[number]
            passage, start, end = self._passages[quote.passage - 1], quote.start, quote.end
        return CitationEvent(
            number=number, document_id=passage.document_id, document_name=passage.document_name, space=passage.space,
            version=passage.version, page=passage.page, heading_path=passage.heading_path,
            start=passage.start + start, end=passage.start + end, quote=passage.text[start:end],
        )  # fmt: skip


def _question(messages: Sequence[Message]) -> str:
    """What to search for: the last question; with the one before when it says too little alone ("and in May?")."""
    asked = [message.content for message in messages if message.role == "user"]
    last = asked[-1] if asked else messages[-1].content
    if len(asked) > 1 and len(analyse_query(last).terms) < _ENOUGH_TERMS:
        return f"{asked[-2]} {last}"
    return last


def _search_detail(found: SearchResult) -> dict[str, object]:
    documents = list(dict.fromkeys(passage.document_name for passage in found.passages))
    return {"passages": len(found.passages), "documents": documents, "language": found.language, "degraded": list(found.degraded)}


def _count(meters: metrics.Meters, finish: Finish, checked: CitationFilter) -> None:
    meters.prompt_tokens.inc(finish.usage.prompt_tokens)
    meters.completion_tokens.inc(finish.usage.completion_tokens)
    if checked.used:
        meters.citations.inc(len(checked.used))
    if checked.invented:
        meters.invented.inc(checked.invented)
    if finish.refused:
        meters.refusals.inc()
