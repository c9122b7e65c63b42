"""From the events of a model to the events for people: citation check, output screen, steps, the end.

Owns: the order of checks on an answer's text, what a broken-off answer looks like, the metrics of a generation. Does not own: what a mark is
(``citations``), what may not go out (the guard), rounds of tools (``tool_loop``).

Invariants: what leaves has passed the citation check first and the screen second; one ``DoneEvent`` at the end, or an ApplianceError.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from opentelemetry.trace import Span

from appliance.contracts.guard.v1.api import OutputScreen
from appliance.contracts.llm.v1.api import ChatRequest, Finish, ModelEvent, Quotes, Rerouted, Tokens, ToolCalls, Usage
from appliance.contracts.router.v1.api import ChatEvent, DoneEvent, StepEvent, TokenEvent, ToolCallsEvent
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.telemetry import exports_content, span
from services.router import metrics
from services.router.citations import CitationFilter
from services.router.fitting import Fewer
from services.router.json_letters import PlainLetters
from services.router.served_model import ServedModel
from services.router.sources import Sources
from services.router.tool_loop import ToolStep


class Answering:
    """One answer.

    Args:
        served: who was asked.
        request: what was asked.
        screen: of the output; None = nothing is screened.
        agent: for whom ``DoneEvent`` says it was.
        started: ``time.perf_counter()`` at the begin of the turn.
    """

    def __init__(self, served: ServedModel, request: ChatRequest, screen: OutputScreen | None, agent: str, started: float) -> None:
        self._served = served
        self._request = request
        self._screen = screen
        self._agent = agent
        self._started = started
        self._sources = Sources(request.passages)
        self._checked = CitationFilter(self._sources.numbers)
        self._alias = served.alias
        self._finish: Finish | None = None
        self._is_data = request.answer_schema is not None  # marks inside its strings are checked where the schema is
        self._first = True
        self._letters = PlainLetters()
        self._tools = 0
        self._pieces = 0
        self._waited = 0.0
        self._told: list[str] | None = None  # the answer, when it is to be traced

    async def run(self, events: AsyncGenerator[ModelEvent | ToolStep | Fewer, None]) -> AsyncGenerator[ChatEvent, None]:
        """The events for people; ``events`` is closed at the end."""
        called, outcome, meters = time.perf_counter(), "cancelled", self._served.meters
        try:
            with span("llm.generate") as current:
                if current.is_recording():
                    self._trace_question(current)
                async with aclosing(events):
                    async for event in events:
                        for out in self._on(event):
                            yield out
                        if self._screen is not None and self._screen.blocked:
                            break
                for out in self._ending():
                    yield out
                finish = self._finished()
                if current.is_recording():
                    self._trace_answer(current, finish)
            outcome = "ok"
        except ApplianceError as exc:
            outcome = exc.code
            raise
        finally:
            (meters.ok if outcome == "ok" else metrics.llm_requests.labels(self._served.alias, outcome)).inc()
            meters.seconds.observe(time.perf_counter() - called)
        _count(meters, finish, self._checked)
        yield DoneEvent(finish.reason, finish.usage, self._alias, finish.refused, self._checked.invented, self._agent, tool_calls=self._tools)

    def _on(self, event: ModelEvent | ToolStep | Fewer) -> Sequence[ChatEvent]:
        if isinstance(event, Tokens):
            self._pieces += len(event.pieces)
            checked = self._checked.feed(event.pieces)  # in data too: it knows what is cited
            return self._text(event.pieces if self._is_data else checked)
        if isinstance(event, Quotes):
            self._sources.quote(event.quotes)
            self._checked.allow(self._sources.numbers)
        elif isinstance(event, ToolStep):
            return self._tool_step(event)
        elif isinstance(event, ToolCalls):
            return (ToolCallsEvent(event.calls),)
        elif isinstance(event, Rerouted):
            self._alias = event.model
            return (StepEvent("reroute", {"model": event.model, "why": event.why}),)
        elif isinstance(event, Finish):
            self._finish = event
        elif isinstance(event, Fewer):
            self._sources.keep(event.passages)
            self._checked.allow(self._sources.numbers)
            return (StepEvent("fit", {"passages": event.passages}),)
        return ()

    def _text(self, pieces: tuple[str, ...]) -> Sequence[ChatEvent]:
        if self._first:
            waited = time.perf_counter() - self._started
            self._served.meters.first_token.observe(waited)
            self._waited = waited
            self._first = False
        if self._screen is not None:
            pieces = self._screen.feed(self._letters.feed(pieces) if self._is_data else pieces)
            self._check_data()
        cited = self._sources.new(self._checked.used)
        if self._told is not None:
            self._told += pieces
        if not cited:
            return (TokenEvent(pieces),) if pieces else ()
        return [*cited, TokenEvent(pieces)] if pieces else cited

    def _tool_step(self, step: ToolStep) -> Sequence[ChatEvent]:
        self._sources.add(step.passages)
        self._checked.allow(self._sources.numbers)
        self._tools += len(step.outcomes)
        return [
            StepEvent(
                "tool",
                {"name": one.call.name, "source": one.source, "code": one.code, "seconds": round(one.seconds, 4), "cached": one.cached, "round": step.round},
            )
            for one in step.outcomes
        ]

    def _ending(self) -> Sequence[ChatEvent]:
        rest = self._checked.close()
        pieces: tuple[str, ...] = self._letters.close() if self._is_data else (rest,) if rest else ()
        if self._screen is not None:
            pieces = (*(self._screen.feed(pieces) if pieces else ()), *self._screen.close())
            self._check_data()
        if self._told is not None:
            self._told += pieces
        out: list[ChatEvent] = [TokenEvent(pieces)] if pieces else []
        return [*out, *self._sources.new(self._checked.used)]

    def _check_data(self) -> None:
        """Data that a policy had to change would not satisfy its schema any more: it does not go out."""
        if self._is_data and self._screen is not None and any(finding.action in {"mask", "block"} for finding in self._screen.findings):
            kinds = ", ".join(sorted({finding.kind for finding in self._screen.findings}))
            raise ApplianceError("content_blocked", f"a policy of this box does not let this answer out: {kinds}", hint="ask for less, or without the schema")

    def _trace_question(self, current: Span) -> None:
        request, schema = self._request, self._request.answer_schema
        current.set_attributes({**names.of_model("generation", "chat", self._alias, self._served.version), **names.of_options(request.options)})
        current.set_attributes({names.PASSAGES: len(request.passages), names.SOURCES: names.distinct(one.document_id for one in request.passages)})
        if schema is not None:
            current.set_attribute(names.SCHEMA_NAME, schema.name)
        if exports_content():
            self._told = []
            current.set_attribute(names.INPUT, names.messages((one.role, one.content) for one in request.messages))

    def _trace_answer(self, current: Span, finish: Finish) -> None:
        usage = finish.usage
        cost = self._served.cost(usage) if self._alias == self._served.alias else None  # who stood in has other prices
        current.set_attributes(names.of_usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, cost))
        current.set_attributes(names.of_answer(self._alias, finish.reason))
        current.set_attributes({"appliance.cited": len(self._checked.used), "appliance.first_token_seconds": round(self._waited, 6)})
        if self._told is not None:
            current.set_attribute(names.OUTPUT, names.messages([("assistant", "".join(self._told))]))

    def _finished(self) -> Finish:
        if self._screen is not None and self._screen.blocked:
            return Finish("content_filter", self._finish.usage if self._finish else Usage(completion_tokens=self._pieces))
        if self._finish is None:
            raise ApplianceError("upstream_failed", "the model ended without finishing", hint="check the model server")
        return self._finish


def _count(meters: metrics.Meters, finish: Finish, checked: CitationFilter) -> None:
    meters.prompt_tokens.inc(finish.usage.prompt_tokens)
    meters.completion_tokens.inc(finish.usage.completion_tokens)
    if checked.used:
        meters.citations.inc(len(checked.used))
    if checked.invented:
        meters.invented.inc(checked.invented)
    if finish.refused:
        meters.refusals.inc()
