"""Data from a model that quotes and does not write (the reader): one question for each field, the quote is the value, with its place.

Nothing is invented: a field that the sources do not answer is null or absent where the schema allows it, else the whole is refused naming the field.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.contracts.llm.v1.api import ChatModel, ChatRequest, Finish, Message, Quote, Quotes, Usage
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.router.v1.api import CitationEvent
from appliance.contracts.sgr.v1.api import FormatStep
from appliance.kit.errors import ApplianceError
from services.sgr.domain import Draft, Order, citation
from services.sgr.extraction import Field, fields_of
from services.sgr.quoted_values import dates_in, numbers_in

Find = Callable[[str], Awaitable[Sequence[Passage]]]
"""Passages for a question; those of the draft when there is one."""

_ABSENT: Final = object()
_TRIMMED: Final = " \t\n.;,:–—-•*|"


@dataclass(slots=True)
class _Found:
    """Places that were used, each once, in the order of use."""

    citations: list[CitationEvent] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def note(self, passage: Passage, quote: Quote) -> None:
        place = citation(len(self.citations) + 1, passage, quote.start, quote.end)
        known = {(seen.document_id, seen.start, seen.end) for seen in self.citations}
        if (place.document_id, place.start, place.end) not in known:
            self.citations.append(place)


async def quote(model: ChatModel, order: Order, find: Find) -> AsyncGenerator[FormatStep | Draft, None]:
    """Steps, then the draft.

    Raises:
        ApplianceError: ``schema_unsupported`` (the schema needs invention), ``schema_unsatisfied`` (a required field has no answer), what the model raises.
    """
    fields = fields_of(order.admitted)
    yield FormatStep("generate", {"enforced_by": "quoting", "fields": len(fields)})
    found = _Found()
    data: dict[str, Any] = {}
    for wanted in fields:
        value = await _value(model, order, wanted, find, found)
        if value is not _ABSENT:
            data[wanted.name] = value
        elif wanted.required and wanted.nullable:
            data[wanted.name] = None
        elif wanted.required:
            raise ApplianceError(
                "schema_unsatisfied", f"the sources do not say {wanted.question!r} ({wanted.pointer})",
                hint="allow null for the field, add documents, or choose a model that writes", path=wanted.pointer,
            )  # fmt: skip
    violations = order.admitted.errors(data)
    yield FormatStep("validate", {"round": 1, "errors": [str(violation) for violation in violations]})
    if violations:
        raise ApplianceError(
            "schema_unsatisfied", f"what the sources say does not fit the schema {violations[0]}", hint="loosen the schema, or choose a model that writes",
            path=violations[0].pointer, errors=[str(violation) for violation in violations],
        )  # fmt: skip
    yield Draft(data, found.citations, 1, "quoting", found.usage)


async def _value(model: ChatModel, order: Order, wanted: Field, find: Find, found: _Found) -> Any:
    passages = await find(wanted.question)
    places = await _ask(model, order, wanted.question, passages, found)
    if wanted.fields:
        return _objects(wanted, places, found)
    values: list[Any] = []
    for passage, place in places:
        value = _read(wanted, passage.text[place.start : place.end])
        if value is not _ABSENT and value not in values:
            found.note(passage, place)
            values.append(value)
            if not wanted.many:
                return value
    return values if wanted.many and (values or wanted.required) else _ABSENT


def _objects(wanted: Field, places: Iterable[tuple[Passage, Quote]], found: _Found) -> Any:
    """One object for each place that answers the list's question; its fields are read from that place."""
    objects: list[dict[str, Any]] = []
    for passage, place in places:
        made: dict[str, Any] = {}
        text = passage.text[place.start : place.end]
        for part in wanted.fields:
            value = _read(part, text)
            if value is not _ABSENT:
                made[part.name] = [value] if part.many else value
            elif part.required and part.nullable:
                made[part.name] = None
            elif part.required:
                break
        else:
            if made and made not in objects:
                found.note(passage, place)
                objects.append(made)
    return objects if objects or wanted.required else _ABSENT


async def _ask(model: ChatModel, order: Order, question: str, passages: Sequence[Passage], found: _Found) -> list[tuple[Passage, Quote]]:
    if not passages:
        return []
    request = ChatRequest((Message("user", question),), passages, grounded=True, language=order.request.language)
    quotes: Sequence[Quote] = ()
    async with aclosing(model.stream(request)) as events:
        async for event in events:
            if isinstance(event, Quotes):
                quotes = event.quotes
            elif isinstance(event, Finish):
                found.usage = Usage(
                    found.usage.prompt_tokens + event.usage.prompt_tokens, found.usage.completion_tokens + event.usage.completion_tokens
                )
                if event.refused:
                    return []
    return [(passages[place.passage - 1], place) for place in quotes if 0 < place.passage <= len(passages)]


def _read(wanted: Field, text: str) -> Any:
    """The value that a quote states, or ``_ABSENT``."""
    if wanted.kind == "date":
        return next((day.isoformat() for day in dates_in(text)), _ABSENT)
    if wanted.kind == "number":
        return next((int(number) if number.is_integer() else number for number in numbers_in(text)), _ABSENT)
    if wanted.kind == "integer":
        return next((int(number) for number in numbers_in(text) if number.is_integer()), _ABSENT)
    if wanted.kind == "choice":
        lowered = text.casefold()
        named = [choice for choice in wanted.choices if choice.casefold() in lowered]
        return named[0] if len(named) == 1 else _ABSENT
    return text.strip(_TRIMMED) or _ABSENT
