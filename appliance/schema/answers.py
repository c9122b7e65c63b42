"""An answer that satisfies its schema, from any chat model that can write: constrained where the engine can, else asked for, validated and repaired.

``schema_answer`` stands around ``ChatModel.stream`` and yields the same events:

- ``grammar`` and everything enforced: tokens pass through as they come; the whole is still validated; one cut by ``max_tokens`` gets its ending.
- ``asked``, keywords that the grammar does not enforce, or sources (marks ``[n]`` in strings must point to one; others are removed): nothing is shown until a round is valid; each failed round goes back to the model with the
  precise errors. After ``rounds`` rounds: ``schema_unsatisfied``.
- ``none``: ``schema_unsupported``, before anything is generated.

Invariant: with a strict schema, an answer that ends with ``Finish`` has satisfied it; ``ToolCalls`` are no answer and pass. A schema that is not strict is
told to the model and not checked (the contract of ``AnswerSchema``). Does not own: the gate, grammars, prompts about sources.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec

from appliance.contracts.llm.v1.api import Capabilities, ChatRequest, Finish, ModelEvent, Tokens, ToolCalls, Usage
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError
from appliance.kit.telemetry import span
from appliance.language.source_marks import Marks
from appliance.schema.annotations import VALIDATORS, without_annotations
from appliance.schema.asking import extracted, repair_messages, told
from appliance.schema.gate import AdmittedSchema, Violation, admit, refusal
from appliance.schema.gate_threads import GATE
from appliance.schema.grammar import Grammar, grammar_of
from appliance.schema.places import places

ROUNDS: Final = 3
MOST_ANSWER_BYTES: Final = 1_048_576

Stream = Callable[[ChatRequest], AsyncGenerator[ModelEvent, None]]


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How one schema will be kept by one model.

    Attributes:
        admitted: the schema, through the gate.
        grammar: None when the model has none.
        sources: how many there are, when ``[n]`` in the answer's strings is a mark of one; None = marks are text like any other.
    """

    admitted: AdmittedSchema
    grammar: Grammar | None
    sources: int | None = None

    @property
    def streams(self) -> bool:
        """Tokens can be shown as they come: nothing can turn out wrong or needless afterwards."""
        return self.grammar is not None and not self.grammar.unenforced and self.sources is None

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Keywords that only validation enforces (with a grammar; without, that is all of them)."""
        return self.grammar.unenforced if self.grammar is not None else ()


def plan_of(schema: object, capabilities: Capabilities, *, with_tools: bool = False) -> AnswerPlan:
    """Decide before anything is generated. Takes up to some 100 ms of CPU for a new schema: call in a thread.

    Args:
        schema: as the caller sent it.
        capabilities: of the model that shall answer.
        with_tools: it may call tools instead, so no grammar can hold its text.

    Raises:
        ApplianceError: ``schema_invalid``; ``schema_unsupported``: also when the model cannot keep any schema.
    """
    admitted = admit(schema)  # type: ignore[arg-type]  # it looks itself
    for place in places(admitted.schema):
        if VALIDATORS in place.schema:
            raise refusal("schema_unsupported", place.pointer, VALIDATORS, "only POST /api/sgr/format and reports ask validators")
    if isinstance(admitted.schema, dict):
        admitted = admit(without_annotations(admitted.schema))
    if capabilities.schema == "none" or not capabilities.generates:
        raise ApplianceError(
            "schema_unsupported", "this model cannot answer by a schema", hint="choose a model that generates text, or extract with sgr.format"
        )
    grammar = grammar_of(admitted) if capabilities.schema == "grammar" and not with_tools else None
    return AnswerPlan(admitted, grammar)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One round: the events without its tokens, its text, and what is wrong with it (() = valid)."""

    events: tuple[ModelEvent, ...]
    text: str
    finish: Finish
    calls: bool
    violations: tuple[Violation, ...]


async def schema_answer(stream: Stream, request: ChatRequest, capabilities: Capabilities, rounds: int = ROUNDS) -> AsyncGenerator[ModelEvent, None]:
    """Events of one answer that satisfies ``request.answer_schema``; without a schema, those of ``stream``.

    Raises:
        ApplianceError: ``schema_invalid``, ``schema_unsupported`` (nothing was generated); ``schema_unsatisfied`` with the last errors; what models raise.
    """
    wanted = request.answer_schema
    if wanted is None:
        async with aclosing(stream(request)) as events:
            async for event in events:
                yield event
        return
    with_tools = bool(request.tools) and request.tool_choice != "none"
    plan = await GATE.run(lambda: plan_of(wanted.schema, capabilities, with_tools=with_tools))
    if request.grounded:
        plan = replace(plan, sources=len(request.passages))
    asked = planned(request, plan)
    chosen = (
        _unchecked(stream, asked) if not wanted.strict else _streamed(stream, asked, plan) if plan.streams else _repaired(stream, asked, plan, rounds)
    )
    async with aclosing(chosen) as answer:
        async for event in answer:
            yield event


def planned(request: ChatRequest, plan: AnswerPlan) -> ChatRequest:
    """The request as a constrained model gets it: told the schema, and held to what its engine can enforce of it. Others are told by their adapter."""
    if plan.grammar is None or request.answer_schema is None:
        return request
    asked = told(request, plan.admitted)
    assert asked.answer_schema is not None
    return replace(asked, answer_schema=replace(asked.answer_schema, schema=plan.grammar.schema))


async def _unchecked(stream: Stream, request: ChatRequest) -> AsyncGenerator[ModelEvent, None]:
    async with aclosing(stream(request)) as events:
        async for event in events:
            yield event


async def _streamed(stream: Stream, request: ChatRequest, plan: AnswerPlan) -> AsyncGenerator[ModelEvent, None]:
    pieces: list[str] = []
    size, calls = 0, False
    async with aclosing(stream(request)) as events:
        async for event in events:
            if isinstance(event, Tokens):
                pieces.extend(event.pieces)
                size += sum(map(len, event.pieces))
                if size > MOST_ANSWER_BYTES:
                    raise unsatisfied((), 1, f"the answer has more than {MOST_ANSWER_BYTES:,} characters")
            elif isinstance(event, ToolCalls):
                calls = True
            elif isinstance(event, Finish) and not calls:
                tail, violations = await _checked("".join(pieces), event, plan)
                if violations:
                    raise unsatisfied(violations, 1)
                if tail:
                    yield Tokens((tail,))
            yield event


async def _repaired(stream: Stream, request: ChatRequest, plan: AnswerPlan, rounds: int) -> AsyncGenerator[ModelEvent, None]:
    usage = Usage()
    violations: tuple[Violation, ...] = ()
    asked = request
    for number in range(1, rounds + 1):
        outcome = await attempt(stream, asked, plan, number)
        usage = _sum(usage, outcome.finish.usage)
        if not outcome.violations:
            for event in outcome.events:
                yield event
            if outcome.text:
                yield Tokens((outcome.text,))
            yield replace(outcome.finish, usage=usage)
            return
        violations = outcome.violations
        if request.deadline is not None and time.monotonic() >= request.deadline:
            break
        asked = replace(request, messages=(*request.messages, *repair_messages(outcome.text, violations)))
    raise unsatisfied(violations, number)


async def attempt(stream: Stream, request: ChatRequest, plan: AnswerPlan, number: int) -> Outcome:
    """One generation, whole; stops reading at ``MOST_ANSWER_BYTES``."""
    events: list[ModelEvent] = []
    pieces: list[str] = []
    size, calls = 0, False
    finish: Finish | None = None
    with span("schema.round", {"appliance.round": number, names.SCHEMA: plan.admitted.digest[:12]}):
        async with aclosing(stream(request)) as answer:
            async for event in answer:
                if isinstance(event, Finish):
                    finish = event
                elif isinstance(event, Tokens):
                    pieces.extend(event.pieces)
                    size += sum(map(len, event.pieces))
                    if size > MOST_ANSWER_BYTES:
                        too_long = Violation("", "maxLength", f"the answer has more than {MOST_ANSWER_BYTES:,} characters")
                        return Outcome(
                            (), "".join(pieces)[:1_000], Finish("length", Usage(completion_tokens=len(pieces))), calls=False, violations=(too_long,)
                        )
                else:
                    calls = calls or isinstance(event, ToolCalls)
                    events.append(event)
        if finish is None:
            raise ApplianceError("upstream_failed", "the model ended without finishing", hint="check the model server")
        text = "".join(pieces)
        if calls:
            return Outcome(tuple(events), text, finish, calls=True, violations=())
        found = text if plan.grammar is not None else extracted(text)
        tail, violations = await _checked(found, finish, plan)
        whole = found + tail
        if not violations and plan.sources is not None:
            whole, violations = await GATE.run(partial(_with_true_marks, whole, plan.admitted, plan.sources))
        return Outcome(tuple(events), text if violations else whole, finish, calls=False, violations=violations)


async def _checked(text: str, finish: Finish, plan: AnswerPlan) -> tuple[str, tuple[Violation, ...]]:
    """The ending of a cut answer, and what is wrong with the whole."""
    if finish.reason == "content_filter":
        raise ApplianceError("content_blocked", "the model's own filter stopped the answer", hint="ask in other words")
    return await GATE.run(lambda: _check(text, finish, plan))  # bounded, but seconds of CPU for a schema that was made to be slow


def _check(text: str, finish: Finish, plan: AnswerPlan) -> tuple[str, tuple[Violation, ...]]:
    tail = ""
    if finish.reason == "length":
        tail = (plan.grammar.ending(text) if plan.grammar is not None else None) or ""
    with span("schema.validate", {names.SCHEMA: plan.admitted.digest[:12], "appliance.characters": len(text)}) as current:
        violations = violations_of(text + tail, plan.admitted)
        current.set_attribute("appliance.violations", len(violations))
    if violations and finish.reason == "length":
        violations = (*violations, Violation("", "", "the answer was cut at the allowed length; write less"))
    return tail, violations


def _with_true_marks(text: str, admitted: AdmittedSchema, sources: int) -> tuple[str, tuple[Violation, ...]]:
    """A valid answer without marks of sources that do not exist; what is left must satisfy the schema still."""
    marks = Marks(sources)
    value = marks.checked(msgspec.json.decode(text))
    if not marks.invented:
        return text, ()
    if violations := admitted.errors(value):
        return text, (*violations, Violation("", "", f"sources are numbered 1 to {sources}; others do not exist"))
    return msgspec.json.encode(value).decode(), ()


def violations_of(text: str, admitted: AdmittedSchema) -> tuple[Violation, ...]:
    """What is wrong with a finished answer: not JSON, or not as the schema says."""
    from appliance.schema.schema_check import decoded

    try:
        value = decoded(text.encode("utf-8", "replace"), "schema_unsatisfied", "the answer", 64)
        if (name := _named_twice(text)) is not None:
            return (Violation("", "", f"an object has the property {name[:100]!r} twice"),)
        return admitted.errors(value)
    except ApplianceError as exc:
        if exc.code != "schema_unsatisfied":
            raise
        return (Violation("", "", exc.message[:200]),)


def _named_twice(text: str) -> str | None:
    """A name that one object has twice: readers of JSON do not agree which value counts, so that what was validated may not be what is read."""
    twice: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            names_seen: set[str] = set()
            twice.extend(name for name, _ in pairs if name in names_seen or names_seen.add(name))  # type: ignore[func-returns-value]

    json.loads(text, object_pairs_hook=look, parse_int=str, parse_float=str)  # a number of 5,000 digits is not for Python
    return twice[0] if twice else None


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(a.prompt_tokens + b.prompt_tokens, a.completion_tokens + b.completion_tokens, a.cached_tokens + b.cached_tokens)


def unsatisfied(violations: tuple[Violation, ...], rounds: int, why: str = "") -> ApplianceError:
    """The error after the last round."""
    reason = why or str(violations[0] if violations else "no answer")
    return ApplianceError(
        "schema_unsatisfied", f"no answer that fits the schema after {rounds} round(s): {reason}"[:500],
        hint="simplify the schema, raise max_tokens, or choose a stronger model", errors=[str(violation) for violation in violations], rounds=rounds,
    )  # fmt: skip
