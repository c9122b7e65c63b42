"""One chat turn: plan → search → model (with tools, by a schema) → checks → events. The way is written down in docs/tours/chat.md.

Does not own: who answers (``planning``), what becomes of a model's words (``answering``), rounds of tools (``tool_loop``), the accounts (the gateway).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from opentelemetry.trace import Span

from appliance.contracts.guard.v1.api import Screened
from appliance.contracts.llm.v1.api import ChatRequest, Message, ModelEvent, Usage
from appliance.contracts.retrieval.v1.api import Retrieval, SearchQuery, SearchResult
from appliance.contracts.router.v1.api import ChatEvent, ChatTurn, CitationEvent, DoneEvent, StepEvent, TokenEvent, ToolCallsEvent
from appliance.contracts.sgr.v1.api import FormatRequest, FormatResult
from appliance.contracts.tools.v1.api import Toolbox, ToolContext
from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.telemetry import span
from appliance.language.query import detect_language
from services.router.answer_cache import Lookup
from services.router.answer_key import Asked
from services.router.answering import Answering
from services.router.clarifying import clarifying_question
from services.router.fitting import Fewer, fitting
from services.router.guarded_answer import GuardedAnswer
from services.router.parts import Parts
from services.router.planning import Plan, Planning, guard_step, note_findings, question_of, record_findings
from services.router.served_model import ServedModel
from services.router.tool_loop import ToolStep, tool_loop

_NOTHING_FOUND: Final = SearchResult((), "other", {})
_PREFIX_CHARACTERS: Final = 200

Way = Callable[[Plan, Principal, float], AsyncGenerator[ChatEvent, None]]
"""How a planned turn is answered; the number is ``time.perf_counter()`` at its begin."""


class ChatRouter:
    """Implements the ``Router`` contract. ``models`` may change between turns: a turn looks its model up once."""

    def __init__(self, models: Mapping[str, ServedModel], retrieval: Retrieval, parts: Parts | None = None) -> None:
        self._parts = parts or Parts()
        self._planning = Planning(models, self._parts)
        self._retrieval = retrieval

    async def chat(self, turn: ChatTurn, principal: Principal) -> AsyncGenerator[ChatEvent, None]:
        """See the contract."""
        with span("chat.turn") as current:
            started = time.perf_counter()
            plan = await self._planning.plan(turn, principal)
            if current.is_recording():
                current.set_attributes(_facts(plan, principal))
            for step in plan.steps:
                yield step
            _check_tools(plan)
            if plan.unclear is not None:
                text, options = clarifying_question(plan.unclear, detect_language(turn.messages[-1].content))
                yield options
                yield TokenEvent((text,))
                yield _described(current, DoneEvent("stop", Usage(), plan.served.alias, agent=plan.agent.name))
                return
            with plan.served.hold():
                async with aclosing(self._way(plan)(plan, principal, started)) as events:
                    async for event in events:
                        yield _described(current, event) if type(event) is DoneEvent else event

    def _way(self, plan: Plan) -> Way:
        """By quotes, through the cache, or straight to the model: each layer of a stream costs every token."""
        if self._must_quote(plan):
            return self._quoted
        cache, served = self._parts.cache, plan.served
        if cache is None or not served.version or not cache.takes(plan.turn, deterministic=not served.capabilities.generates):
            return self._worked_out
        return self._answered if self._box_tools(plan) is None else self._worked_out

    def _must_quote(self, plan: Plan) -> bool:
        """An answer by schema from a model that writes nothing of its own."""
        return plan.turn.answer_schema is not None and not plan.served.capabilities.generates and self._parts.schema_guided is not None

    async def _answered(self, plan: Plan, principal: Principal, started: float) -> AsyncGenerator[ChatEvent, None]:
        """Answered before, or worked out and kept."""
        cache = self._parts.cache
        assert cache is not None
        asked = Asked(
            plan.turn, principal, plan.served.alias, plan.served.version, plan.agent.name, plan.agent.system_prompt,
            policy=self._parts.policy(), deterministic=not plan.served.capabilities.generates,
        )  # fmt: skip
        async with cache.turn(asked) as lookup, aclosing(self._worked_out(plan, principal, started, lookup)) as events:
            if (replay := await lookup.by_library()) is not None:
                plan.served.meters.first_token.observe(time.perf_counter() - started)
                for event in replay:
                    yield event
                return
            async for event in events:
                yield event

    async def _worked_out(self, plan: Plan, principal: Principal, started: float, lookup: Lookup | None = None) -> AsyncGenerator[ChatEvent, None]:
        """Search, then the same answer as before to the same passages, or a new one."""
        found, grounded = _NOTHING_FOUND, self._wants_sources(plan, principal)
        if grounded:
            found, steps = await self._search(plan, principal)
            for step in steps:
                yield step
            if lookup is not None and any(step.name == "guard" for step in steps):
                lookup.must_search()
        if lookup is not None and (replay := await lookup.by_passages(found, grounded=grounded)) is not None:
            for event in replay:
                yield event
            return
        request = _request(plan, found, principal, grounded=grounded)
        _check_able(request, plan.served)
        guarded = None
        if self._parts.guard is not None:
            guarded = GuardedAnswer(self._parts.guard, plan.scope, plan.agent.system_prompt, is_data=request.answer_schema is not None)
        answering = Answering(plan.served, request, None if guarded is None else guarded.text, plan.agent.name, started)
        recorded = guarded is None
        try:
            async with aclosing(answering.run(self._generated(plan, request, principal, guarded))) as events:
                async for event in events:
                    if guarded is not None and type(event) is CitationEvent:
                        event = guarded.quote(event)  # noqa: PLW2901 - as it may go out
                    if guarded is not None and type(event) is ToolCallsEvent:
                        guarded.calls(event.calls)
                    if type(event) is DoneEvent:
                        recorded = True
                        if guarded is not None and (findings := guarded.findings):
                            await record_findings(self._parts, findings, principal, plan.scope, plan.turn.trace_id)
                            yield guard_step(findings)
                            lookup = None  # who gets it next must leave a record as well
                        if event.model != plan.served.alias:
                            lookup = None  # another model stood in: not what this one would say
                    if lookup is not None:
                        await lookup.saw(event)
                    yield event
        finally:
            if guarded is not None and not recorded and guarded.findings:  # broken off: what was held back is on record all the same
                note_findings(self._parts, guarded.findings, principal, plan.scope, plan.turn.trace_id)

    def _box_tools(self, plan: Plan) -> Toolbox | None:
        """The toolbox, when this agent may use some of it with this model."""
        return self._parts.toolbox if plan.agent.tools and plan.served.capabilities.tools else None

    def _generated(
        self, plan: Plan, request: ChatRequest, principal: Principal, guarded: GuardedAnswer | None
    ) -> AsyncGenerator[ModelEvent | ToolStep | Fewer, None]:
        stream = plan.served.model.stream
        if request.answer_schema is not None:
            from appliance.schema.answers import schema_answer  # with it comes a schema library, which a start need not wait for

            stream = partial(schema_answer, stream, capabilities=plan.served.capabilities, rounds=self._parts.schema_rounds)
        toolbox = self._box_tools(plan)
        if toolbox is None:
            return fitting(stream, request) if request.passages else stream(request)
        turn = plan.turn
        context = ToolContext(principal, plan.agent.name, turn.spaces, turn.thread_id, turn.trace_id, request.deadline, secrets.token_hex(16))
        screen = Screened if guarded is None else guarded.tool
        return tool_loop(stream, request, toolbox, context, screen, replace(self._parts.loop, rounds=min(self._parts.loop.rounds, plan.agent.max_rounds)))

    def _wants_sources(self, plan: Plan, principal: Principal) -> bool:
        """Whether to search before the model is asked: unless the caller or the agent said no, or there is nothing to find and the model can do without."""
        if plan.turn.spaces == () or not plan.agent.retrieval:
            return plan.served.grounded_only
        return plan.served.grounded_only or self._retrieval.has_documents(principal.readable(plan.turn.spaces))

    async def _search(self, plan: Plan, principal: Principal) -> tuple[SearchResult, Sequence[StepEvent]]:
        turn = plan.turn
        with span("chat.retrieve") as current:
            found = await self._retrieval.search(SearchQuery(question_of(turn.messages), turn.spaces, turn.top_k, turn.document_ids), principal)
            if current.is_recording():
                current.set_attributes({names.KIND: "retriever", names.PASSAGES: len(found.passages), "appliance.degraded": found.degraded})
                current.set_attribute(names.SOURCES, names.distinct(passage.document_id for passage in found.passages))
        steps = [StepEvent("search", _search_detail(found))]
        if self._parts.guard is not None and found.passages:
            passages, findings = self._parts.guard.screen_passages(found.passages, plan.scope)
            if findings:
                await record_findings(self._parts, findings, principal, plan.scope, turn.trace_id)
                steps.append(guard_step(findings))
                found = SearchResult(tuple(passages), found.language, found.timings, found.degraded)
        return found, steps

    async def _quoted(self, plan: Plan, principal: Principal, started: float) -> AsyncGenerator[ChatEvent, None]:
        """The schema's fields filled with quotes."""
        turn, guided = plan.turn, self._parts.schema_guided
        assert guided is not None
        assert turn.answer_schema is not None
        question = question_of(turn.messages)
        request = FormatRequest(
            question, schema=turn.answer_schema.schema, language=detect_language(question), spaces=turn.spaces, document_ids=turn.document_ids,
            model=plan.served.alias, thread_id=turn.thread_id, trace_id=turn.trace_id,
        )  # fmt: skip
        async with aclosing(guided.format(request, principal)) as steps:
            async for step in steps:
                if isinstance(step, FormatResult):
                    plan.served.meters.first_token.observe(time.perf_counter() - started)
                    for citation in step.citations:
                        yield citation
                    yield TokenEvent((step.text,))
                    yield DoneEvent("stop", step.usage, plan.served.alias, agent=plan.agent.name)
                else:
                    yield StepEvent(step.name, step.detail)


def _described(current: Span, done: DoneEvent) -> DoneEvent:
    """How the turn ended, on its span."""
    if current.is_recording():
        current.set_attributes({**names.of_answer(done.model, done.finish_reason), "appliance.cached": done.cached, "appliance.refused": done.refused})
    return done


def _request(plan: Plan, found: SearchResult, principal: Principal, *, grounded: bool) -> ChatRequest:
    turn, prompt = plan.turn, plan.agent.system_prompt
    return ChatRequest(
        [Message("system", prompt), *turn.messages] if prompt else turn.messages, found.passages, grounded, found.language, turn.options, turn.tools, turn.tool_choice, turn.answer_schema,
        affinity=turn.thread_id or f"{principal.subject} {turn.messages[0].content[:_PREFIX_CHARACTERS]}", deadline=turn.deadline,
    )  # fmt: skip


def _facts(plan: Plan, principal: Principal) -> dict[str, str]:
    """What a trace says of the turn as a whole. No tokens: those are on the generations, and would be counted twice."""
    turn = plan.turn
    thread = {names.THREAD: turn.thread_id, names.SESSION: turn.thread_id} if turn.thread_id else {}
    return {
        **names.of_model("agent", "invoke_agent", plan.served.alias, plan.served.version),
        **thread,
        **({names.TASK: turn.task_id} if turn.task_id else {}),
        names.AGENT: plan.agent.name,
        names.USER: principal.subject,
        names.REQUEST: turn.trace_id,
    }


def _check_tools(plan: Plan) -> None:
    """Before anything is searched for: the caller's tools are refused by a model without them, never ignored."""
    if plan.turn.tools and not plan.served.capabilities.tools:
        raise ApplianceError("invalid_request", f"model {plan.served.alias!r} takes no tools", hint="name a model that does", param="tools")


def _check_able(request: ChatRequest, served: ServedModel) -> None:
    """What a model cannot do is refused, never ignored."""
    if request.answer_schema is not None and not served.capabilities.generates:
        hint = "name a model that writes text of its own: GET /v1/models"
        raise ApplianceError("schema_unsupported", f"model {served.alias!r} only quotes; it fills no schema here", hint=hint, param="response_format")


def _search_detail(found: SearchResult) -> dict[str, object]:
    documents = list(dict.fromkeys(passage.document_name for passage in found.passages))
    return {"passages": len(found.passages), "documents": documents, "language": found.language, "degraded": list(found.degraded)}
