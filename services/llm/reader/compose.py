"""The reader's front door: from question and passages to a short reply made of quotes, or to a refusal.

Owns the order of the steps and the words around quotes. Nothing in a reply comes from anywhere but a quoted span, except
the fixed phrases of `PHRASES`.

Use `read` when an encoder can be called at once, or `prepare` and `answer` when embedding is somebody else's await.

Invariants:
    1. For each quote, `quote.text == passages[i].text[quote.start:quote.end]`, where `passages[i].number == quote.number`.
    2. A refusal has no quotes; an answer has one to three.
    3. Joining the segments gives the reply; segments other than quotes are phrases or citation marks.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.language.matching import QueryProfile
from appliance.language.query import DocumentFrequencies, Language
from services.llm.reader import answerability, selection
from services.llm.reader.evidence import ReaderPassage, UnitEvidence, gather, profile_question
from services.llm.reader.sentences import Unit

Similarity = Callable[[Sequence[str]], Sequence[float]]
"""Cosine of each text with the question; given only when the encoder knows the question's language."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """The only words of a reply that are not quoted, in one language."""

    opening: str
    refusal: str
    left: str
    right: str


PHRASES: Final = {
    Language.EN: Phrases("The documents say:", "The documents do not contain the answer to this question.", "“", "”"),
    Language.RU: Phrases("В документах сказано:", "В документах нет ответа на этот вопрос.", "«", "»"),
}
_PIECE: Final = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class Quote:
    """`text` is characters `start:end` of the passage with citation number `number`."""

    number: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the reply; `quote` is set when `text` is quoted, None for a phrase or a citation mark."""

    text: str
    quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the reader has to say.

    Attributes:
        segments: in order.
        quotes: in order of appearance; empty for a refusal.
        refused: the passages do not contain the answer.
        probability: that they do, in [0, 1].
        language: of the fixed phrases.
    """

    segments: tuple[Segment, ...]
    quotes: tuple[Quote, ...]
    refused: bool
    probability: float
    language: Language

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(segment.text for segment in self.segments)

    def pieces(self) -> Iterator[str]:
        """Return the reply word by word, for streaming; joined they are `text`."""
        for segment in self.segments:
            yield from _PIECE.findall(segment.text)


@dataclass(frozen=True, slots=True)
class Reading:
    """A question read against its passages, before similarity is known.

    Attributes:
        shortlist: texts to embed (at most ten, best first), in the order that `answer` expects cosines.
        positions: their positions in `evidence`.
    """

    profile: QueryProfile
    passages: tuple[ReaderPassage, ...]
    evidence: tuple[UnitEvidence, ...]
    positions: tuple[int, ...]
    shortlist: tuple[str, ...]


def prepare(question: str, passages: Sequence[ReaderPassage], statistics: DocumentFrequencies | None = None) -> Reading:
    """Analyse the question and every unit of the passages."""
    profile = profile_question(question, passages, statistics)
    evidence = gather(profile, passages)
    positions = tuple(selection.shortlist(evidence))
    texts = tuple(_embedded_text(passages[evidence[i].passage].text, evidence[i].unit) for i in positions)
    return Reading(profile, tuple(passages), tuple(evidence), positions, texts)


def _embedded_text(text: str, unit: Unit) -> str:
    """Return what the encoder sees of a unit: a table row reads `column: cell; column: cell`, as a sentence would."""
    own = text[unit.start : unit.end]
    if unit.header is None:
        return own
    columns, cells = ([cell.strip() for cell in row.strip("| ").split("|")] for row in (text[slice(*unit.header)], own))
    return "; ".join(f"{column}: {cell}" for column, cell in zip(columns, cells, strict=False) if cell)


def answer(reading: Reading, cosines: Sequence[float] | None, *, threshold: float = answerability.THRESHOLD) -> Reply:
    """Decide and compose.

    Args:
        reading: from `prepare`.
        cosines: of `reading.shortlist` with the question, or None when the encoder cannot read the question.
        threshold: refuse below this probability.
    """
    known = dict(zip(reading.positions, cosines, strict=True)) if cosines is not None and len(cosines) else None
    units = selection.score_units(reading.evidence, known)
    query = reading.profile.query
    belief = answerability.probability(units, len(query.terms))
    language = query.language if query.language in PHRASES else Language.EN
    if belief < threshold:
        return Reply((Segment(PHRASES[language].refusal),), (), refused=True, probability=belief, language=language)
    spans = selection.choose_spans(units, reading.passages, query.expects)
    quotes = tuple(_quote(reading.passages[span.passage], span) for span in spans)
    segments = tuple(_segments(quotes, PHRASES[language]))
    return Reply(segments, quotes, refused=not quotes, probability=belief, language=language)


def read(
    question: str,
    passages: Sequence[ReaderPassage],
    statistics: DocumentFrequencies | None = None,
    similarity: Similarity | None = None,
    *,
    threshold: float = answerability.THRESHOLD,
) -> Reply:
    """`prepare`, embed the shortlist when there is a `similarity`, `answer`."""
    reading = prepare(question, passages, statistics)
    cosines = similarity(reading.shortlist) if similarity and reading.shortlist else None
    return answer(reading, cosines, threshold=threshold)


def _quote(passage: ReaderPassage, span: selection.Span) -> Quote:
    return Quote(passage.number, span.start, span.end, passage.text[span.start : span.end])


def _segments(quotes: Sequence[Quote], phrases: Phrases) -> Iterator[Segment]:
    yield Segment(phrases.opening)
    for quote in quotes:
        yield Segment(f"\n{phrases.left}")
        yield Segment(quote.text, quote)
        yield Segment(f"{phrases.right} [{quote.number}]")
