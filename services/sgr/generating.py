"""Data from a model that writes: the prompt, the rounds, the marks of sources. A failed round goes back with its exact errors.

How a model is held to a schema is ``appliance.schema.answers``; this adds what a document needs on top: the draft, the template's hint, and that every
``[n]`` in the data is a source that exists.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import AnswerSchema, ChatModel, ChatRequest, Message, Usage
from appliance.contracts.sgr.v1.api import FormatStep
from appliance.kit.errors import ApplianceError
from appliance.language.source_marks import Marks
from appliance.schema.annotations import without_annotations
from appliance.schema.answers import AnswerPlan, Outcome, attempt, plan_of, planned, unsatisfied
from appliance.schema.asking import repair_messages
from appliance.schema.gate import Violation
from appliance.schema.gate_threads import GATE
from services.sgr.domain import Draft, Order, citation
from services.sgr.validation import Validation, validated

_DRAFT: Final = {
    "en": "Bring the draft below into the required form. Keep its facts, add none.\n\n{prompt}\n\n<draft>\n{draft}\n</draft>",
    "ru": "Приведи черновик ниже к требуемой форме. Сохрани его факты, новых не добавляй.\n\n{prompt}\n\n<draft>\n{draft}\n</draft>",
}


async def generate(
    model: ChatModel, order: Order, rounds: int, seconds: float, validation: Validation
) -> AsyncGenerator[FormatStep | Draft, None]:
    """Steps, then the draft. Sources that do not fit the model's context go from the end, as in a chat, and the model is asked again.

    Raises:
        ApplianceError: as ``SchemaGuided.format``.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            async with aclosing(_generated(model, order, rounds, deadline, validation)) as steps:
                async for step in steps:
                    yield step
        except ApplianceError as error:
            if error.code != "context_length_exceeded" or len(order.passages) < 2:
                raise
            order = replace(order, passages=order.passages[: len(order.passages) // 2])
            yield FormatStep("fit", {"passages": len(order.passages)})
        else:
            return


async def _generated(
    model: ChatModel, order: Order, rounds: int, deadline: float, validation: Validation
) -> AsyncGenerator[FormatStep | Draft, None]:
    schema = without_annotations(order.admitted.schema) if isinstance(order.admitted.schema, dict) else order.admitted.schema
    plan = await GATE.run(lambda: plan_of(schema, model.capabilities))
    if order.grounded or order.request.draft:
        plan = replace(plan, sources=len(order.passages))
    yield FormatStep(
        "generate", {"enforced_by": "grammar" if plan.grammar is not None and not plan.unenforced else "repair", "unenforced": list(plan.unenforced)}
    )
    base = planned(_asked(order, deadline), plan)
    asked, usage = base, Usage()
    violations: tuple[Violation, ...] = ()
    for number in range(1, rounds + 1):
        outcome = await attempt(model.stream, asked, plan, number)
        usage = _sum(usage, outcome.finish.usage)
        draft, violations = await GATE.run(partial(_judged, outcome, order, plan))
        if draft is not None:
            judgement = await validation.judge(order.admitted, draft.data)
            draft, violations = (None, judgement.violations) if judgement.violations else (replace(draft, unasked=judgement.unasked), ())
        yield FormatStep("validate", validated(number, violations, draft.unasked if draft is not None else ()))
        if draft is not None:
            yield replace(draft, rounds=number, usage=usage)
            return
        if base.deadline is not None and time.monotonic() >= base.deadline:
            raise unsatisfied(violations, number)
        if number < rounds:
            yield FormatStep("repair", {"round": number + 1})
        asked = replace(base, messages=(*base.messages, *repair_messages(outcome.text, violations)))
    raise unsatisfied(violations, rounds)


def _asked(order: Order, deadline: float) -> ChatRequest:
    request = order.request
    language = request.language if request.language in _DRAFT else "en"
    text = _DRAFT[language].format(prompt=request.prompt, draft=request.draft.replace("</draft>", "")) if request.draft else request.prompt
    messages = [Message("user", text)]
    schema = without_annotations(order.admitted.schema) if isinstance(order.admitted.schema, dict) else {}
    if order.hint:
        messages.insert(0, Message("system", order.hint))
    return ChatRequest(
        tuple(messages), order.passages, order.grounded and not request.draft, language,
        {"temperature": 0.0}, answer_schema=AnswerSchema("data", schema), deadline=deadline,
    )  # fmt: skip


def _judged(outcome: Outcome, order: Order, plan: AnswerPlan) -> tuple[Draft | None, tuple[Violation, ...]]:
    """The draft, or what is wrong. Its marks were checked with it."""
    if outcome.violations:
        return None, outcome.violations
    marks = Marks(len(order.passages))
    data: Any = marks.checked(msgspec.json.decode(outcome.text))
    numbers = marks.used or range(1, len(order.passages) + 1)  # a model that marks nothing rests on all that it was given
    citations = [citation(number, order.passages[number - 1]) for number in numbers] if order.grounded else []
    return Draft(data, citations, 1, "grammar" if plan.grammar is not None and not plan.unenforced else "repair", Usage(), plan.unenforced), ()


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(a.prompt_tokens + b.prompt_tokens, a.completion_tokens + b.completion_tokens, a.cached_tokens + b.cached_tokens)
