"""Data from a model that quotes and does not write (the reader): one question for each field, the quote is the value, with its place.

Nothing is invented: a field that the sources do not answer is null or absent where the schema allows it, else the whole is refused naming the field. Where
the schema says so (``extraction.Source``), values come from the prompt or from what was found for it instead; data that quote nothing at all are refused.
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
from services.sgr.extraction import Field, Source, fields_of
from services.sgr.quoted_sections import Piece, cut, plain, relevant, sections, sentences
from services.sgr.quoted_values import dates_in, numbers_in
from services.sgr.validation import Judgement, Validation, validated

Find = Callable[[str], Awaitable[Sequence[Passage]]]
"""Passages for a question, "" = for the prompt; those of the draft when there is one."""

_ABSENT: Final = object()
_TRIMMED: Final = " \t\n.;,:–—-•*|"


@dataclass(slots=True)
class _Found:
    """Places that were used, each once, in the order of use."""

    citations: list[CitationEvent] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def note(self, passage: Passage, start: int, end: int) -> int:
        """The number of the place."""
        place = citation(len(self.citations) + 1, passage, start, end)
        known = {(seen.document_id, seen.start, seen.end): seen.number for seen in self.citations}
        if (number := known.get((place.document_id, place.start, place.end))) is not None:
            return number
        self.citations.append(place)
        return place.number


async def quote(model: ChatModel, order: Order, find: Find, validation: Validation) -> AsyncGenerator[FormatStep | Draft, None]:
    """Steps, then the draft.

    Raises:
        ApplianceError: ``schema_unsupported`` (the schema needs invention), ``schema_unsatisfied`` (a required field has no answer, or nothing has one),
            what the model raises.
    """
    fields = fields_of(order.admitted)
    yield FormatStep("generate", {"enforced_by": "quoting", "fields": len(fields)})
    quoting = _Quoting(model, order, find)
    data: dict[str, Any] = {}
    for wanted in fields:
        value = await quoting.value(wanted)
        if value is not _ABSENT:
            data[wanted.name] = value
        elif wanted.required and wanted.nullable:
            data[wanted.name] = None
        elif wanted.required:
            if wanted.told:
                raise _nothing(order, wanted.pointer)
            raise ApplianceError(
                "schema_unsatisfied", f"the sources do not say {wanted.question!r} ({wanted.pointer})",
                hint="allow null for the field, add documents, or choose a model that writes", path=wanted.pointer,
            )  # fmt: skip
    if not quoting.found.citations and any(wanted.told for wanted in fields):
        raise _nothing(order)
    violations = order.admitted.errors(data)
    judgement = await validation.judge(order.admitted, data) if not violations else Judgement()
    violations = violations or judgement.violations
    yield FormatStep("validate", validated(1, violations, judgement.unasked))
    if violations:
        raise ApplianceError(
            "schema_unsatisfied", f"what the sources say does not fit the schema {violations[0]}", hint="loosen the schema, or choose a model that writes",
            path=violations[0].pointer, errors=[str(violation) for violation in violations],
        )  # fmt: skip
    yield Draft(data, quoting.found.citations, 1, "quoting", quoting.found.usage, unasked=judgement.unasked)


def _nothing(order: Order, pointer: str = "") -> ApplianceError:
    about = order.request.prompt if order.request.prompt.strip() else "this"
    return ApplianceError(
        "schema_unsatisfied", f"the sources say nothing about {cut(about, 200)!r}",
        hint="name what the documents name, look in other spaces, or choose a model that writes", path=pointer,
    )  # fmt: skip


class _Quoting:
    """One order: asks for each field, and remembers what was used."""

    def __init__(self, model: ChatModel, order: Order, find: Find) -> None:
        self._model = model
        self._order = order
        self._find = find
        self._about: list[Passage] | None = None
        self.found: Final = _Found()

    async def value(self, wanted: Field) -> Any:
        """From the first of the field's sources that has one, or ``_ABSENT``."""
        for source in wanted.sources:
            if (value := await self._from(source, wanted)) is not _ABSENT:
                return value
        return _ABSENT

    async def _from(self, source: Source, wanted: Field) -> Any:
        if source == "empty":
            return [] if wanted.many else ""
        if source == "prompt":
            words = cut(" ".join(self._order.request.prompt.split()), wanted.longest)
            return _ABSENT if not words else [words] if wanted.many else words
        if source in {"passages", "sentences"}:
            found = sections(await self._topic())
            rows = found if source == "passages" else [[one] for section in found for piece in section for one in sentences(piece.passage)]
            return self._rows(wanted, rows) if wanted.fields else _ABSENT
        return await self._quoted(source, wanted) if source != "place" else _ABSENT

    async def _topic(self) -> list[Passage]:
        if self._about is None:
            passages = await self._find("")
            self._about = list(passages) if self._order.request.draft else relevant(self._order.request.prompt, passages)
        return self._about

    async def _quoted(self, source: Source, wanted: Field) -> Any:
        prompt = self._order.request.prompt
        question = wanted.question.replace("{prompt}", prompt)
        passages = await self._find("" if question == prompt else question)
        pieces = [Piece(passage, place.start, place.end, passage.text[place.start : place.end]) for passage, place in await self._ask(question, passages)]
        if wanted.fields:
            return self._rows(wanted, [[piece] for piece in pieces])
        values: list[Any] = []
        for piece in pieces:
            value = self._read(source, wanted, piece)
            if value is _ABSENT or value in values:
                continue
            values.append(value)
            number = self.found.note(piece.passage, piece.start, piece.end)
            if source == "cited":
                values[-1] = f"{value} [{number}]"
            if not wanted.many:
                return values[-1]
        if wanted.told and not values:
            return _ABSENT
        return values[: wanted.most] if wanted.many and (values or wanted.required) else _ABSENT

    def _read(self, source: Source, wanted: Field, piece: Piece) -> Any:
        if source == "date":
            return next((day.isoformat() for day in dates_in(piece.words)), _ABSENT)
        value = _read(wanted, plain(piece.words) if wanted.told else piece.words)
        return cut(value, _room(source, wanted)) if wanted.told and isinstance(value, str) else value

    def _rows(self, wanted: Field, groups: Iterable[Sequence[Piece]]) -> Any:
        """One object for each group of pieces; its fields are read from these. Citations are noted once an object is whole."""
        objects: list[dict[str, Any]] = []
        for pieces in groups:
            made = self._row(wanted, pieces)
            if made and made not in objects:
                numbers = [self.found.note(one.passage, *_cited_span(one)) for one in pieces]
                objects.append({part.name: self._cited(part, made[part.name], pieces, numbers) for part in wanted.fields if part.name in made})
            if wanted.told and wanted.most is not None and len(objects) >= wanted.most:
                break
        return objects if objects or (wanted.required and not wanted.told) else _ABSENT

    def _row(self, wanted: Field, pieces: Sequence[Piece]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for part in wanted.fields:
            value = next((value for source in part.sources if (value := self._part(source, part, pieces)) is not _ABSENT), _ABSENT)
            if value is not _ABSENT:
                made[part.name] = value
            elif part.required and part.nullable:
                made[part.name] = None
            elif part.required:
                return {}
        return made

    def _part(self, source: Source, part: Field, pieces: Sequence[Piece]) -> Any:
        if source == "empty":
            return [] if part.many else ""
        if source == "place":
            value: Any = cut(pieces[0].place, part.longest)
        elif source == "prompt":
            value = cut(self._order.request.prompt, part.longest)
        elif source == "sentences":
            lines = [cut(line.words, part.longest) for piece in pieces for line in sentences(piece.passage)]
            return lines[: part.most] if part.many and lines else _ABSENT
        else:
            value = self._read(source, part, Piece(pieces[0].passage, pieces[0].start, pieces[0].end, "\n\n".join(piece.words for piece in pieces)))
        return [value] if part.many and value is not _ABSENT else value

    def _cited(self, part: Field, value: Any, pieces: Sequence[Piece], numbers: Sequence[int]) -> Any:
        """``value`` with the numbers of its places, where the schema wants them."""
        if "cited" not in part.sources or not isinstance(value, str) or not value:
            return value
        texts = [f"{piece.words} [{number}]" for piece, number in zip(pieces, numbers, strict=True)]
        whole = "\n\n".join(texts)
        return whole if part.longest is None or len(whole) <= part.longest else f"{value} [{numbers[0]}]"

    async def _ask(self, question: str, passages: Sequence[Passage]) -> list[tuple[Passage, Quote]]:
        if not passages:
            return []
        request = ChatRequest((Message("user", question),), passages, grounded=True, language=self._order.request.language)
        quotes: Sequence[Quote] = ()
        async with aclosing(self._model.stream(request)) as events:
            async for event in events:
                if isinstance(event, Quotes):
                    quotes = event.quotes
                elif isinstance(event, Finish):
                    spent = self.found.usage
                    self.found.usage = Usage(spent.prompt_tokens + event.usage.prompt_tokens, spent.completion_tokens + event.usage.completion_tokens)
                    if event.refused:
                        return []
        return [(passages[place.passage - 1], place) for place in quotes if 0 < place.passage <= len(passages)]


_MARK_ROOM: Final = len(" [9999]")


def _room(source: Source, wanted: Field) -> int | None:
    return wanted.longest - _MARK_ROOM if source == "cited" and wanted.longest is not None else wanted.longest


def _cited_span(piece: Piece) -> tuple[int, int]:
    """What a mark behind it leads to: of a whole passage its first sentence, where it begins."""
    if (piece.start, piece.end) != (0, len(piece.passage.text)):
        return piece.start, piece.end
    first = next(sentences(piece.passage), piece)
    return first.start, first.end


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
