"""Choosing what to quote: a score for every unit, then the fewest short spans that very likely hold the answer.

Owns the score of a unit and the span policy. Does not own features (`evidence`) or the decision to refuse.

The score is the exponent of a softmax over all units of all passages, so `probability` is the model's belief that a unit
holds the answer. Weights: listwise softmax regression on XQuAD (English, Russian; cross-validated by article: the
answer is in the best unit for 80 % / 76 %, in the best three for 95 % / 92 % of questions), rounded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.language.query import AnswerType
from services.llm.reader.evidence import ReaderPassage, UnitEvidence
from services.llm.reader.sentences import UnitKind

SHORTLIST: Final = 10
"""Units that are worth embedding: at about 2 ms each this stays below the reader's 25 ms."""
MOST_SPANS: Final = 3
ENOUGH: Final = 0.95
"""Quoting stops when the quoted units hold the answer with this probability."""
LEAST: Final = 0.05
"""A unit this much less likely than the best one is not quoted at all; keeps the reply short, costs 1 % of answers."""
LONGEST_SPAN: Final = 700


@dataclass(frozen=True, slots=True)
class SelectionWeights:
    """Weight of each feature of `UnitEvidence`; `behind` counts against a unit, `cosine` is of the unit itself."""

    own: float
    near: float
    whole: float
    pairs: float
    grams: float
    answer_type: float
    cosine: float
    behind: float


WITH_DENSE: Final = SelectionWeights(own=1.5, near=5.0, whole=0.0, pairs=1.0, grams=1.0, answer_type=0.85, cosine=4.5, behind=20.0)
WITHOUT_DENSE: Final = SelectionWeights(own=1.5, near=5.5, whole=1.5, pairs=0.5, grams=3.0, answer_type=0.85, cosine=0.0, behind=13.0)


@dataclass(frozen=True, slots=True)
class ScoredUnit:
    """A unit with its score, its cosine (None when unknown) and the probability that it holds the answer."""

    evidence: UnitEvidence
    score: float
    cosine: float | None
    probability: float


@dataclass(frozen=True, slots=True)
class Span:
    """`passages[passage].text[start:end]`, to be quoted."""

    passage: int
    start: int
    end: int


def shortlist(evidence: Sequence[UnitEvidence]) -> list[int]:
    """Positions in `evidence` of the units whose cosine is worth computing, best first."""
    order = sorted(range(len(evidence)), key=lambda i: -_score(evidence[i], None))
    return order[:SHORTLIST]


def score_units(evidence: Sequence[UnitEvidence], cosines: dict[int, float] | None) -> list[ScoredUnit]:
    """Score every unit, best first.

    Args:
        evidence: from `evidence.gather`.
        cosines: cosine by position in `evidence`, for the shortlist; None when the encoder cannot read the question. A
            unit outside the shortlist is taken to be as similar as the least similar unit inside.
    """
    floor = min(cosines.values()) if cosines else None
    known = [cosines.get(i, floor) if cosines else None for i in range(len(evidence))]
    scores = [_score(e, c) for e, c in zip(evidence, known, strict=True)]
    top = max(scores, default=0.0)
    total = sum(math.exp(score - top) for score in scores)
    units = [ScoredUnit(e, score, cosine, math.exp(score - top) / total) for e, score, cosine in zip(evidence, scores, known, strict=True)]
    return sorted(units, key=lambda unit: -unit.score)


def _score(e: UnitEvidence, cosine: float | None) -> float:
    w = WITHOUT_DENSE if cosine is None else WITH_DENSE
    return (
        w.own * e.own
        + w.near * e.near
        + w.whole * e.whole
        + w.pairs * e.pairs
        + w.grams * e.grams
        + w.answer_type * e.answer_type
        + w.cosine * (cosine or 0.0)
        - w.behind * e.behind
    )


def choose_spans(units: Sequence[ScoredUnit], passages: Sequence[ReaderPassage], expects: AnswerType) -> list[Span]:
    """Return the spans to quote, best first: at most three, each one unit or two adjacent ones.

    Units are taken by probability until `ENOUGH` is reached. A unit next to a quoted single unit joins it. An
    explanation takes the sentence after the best one as well. A table row brings its header row as a span of its own.
    """
    spans: list[list[UnitEvidence]] = []
    held = 0.0
    for unit in units:
        if held >= ENOUGH or unit.probability < LEAST * units[0].probability:
            break
        if _is_lesser_row(unit.evidence, units[0].evidence):
            continue
        if _join(spans, unit.evidence) or _add(spans, unit.evidence):
            held += unit.probability
    if spans and expects is AnswerType.EXPLANATION:
        _take_next(spans[0], units)
    return _bounds(spans, passages)


def _is_lesser_row(e: UnitEvidence, best: UnitEvidence) -> bool:
    """Return a table row about something else: its neighbours look alike, so it must meet the question as well as the best."""
    return e.unit.kind is UnitKind.ROW and e.own < best.own


def _adjacent(span: list[UnitEvidence], e: UnitEvidence) -> bool:
    first, last = span[0], span[-1]
    if len(span) > 1 or first.passage != e.passage or UnitKind.ROW in (first.unit.kind, e.unit.kind):
        return False
    length = max(last.unit.end, e.unit.end) - min(first.unit.start, e.unit.start)
    return abs(first.index - e.index) == 1 and length <= LONGEST_SPAN


def _join(spans: list[list[UnitEvidence]], e: UnitEvidence) -> bool:
    for span in spans:
        if _adjacent(span, e):
            span.append(e)
            span.sort(key=lambda part: part.index)
            return True
    return False


def _add(spans: list[list[UnitEvidence]], e: UnitEvidence) -> bool:
    if _spans_used(spans, e) > MOST_SPANS:
        return False
    spans.append([e])
    return True


def _headers(spans: Sequence[list[UnitEvidence]]) -> dict[tuple[int, int, int], None]:
    """Header rows that the quoted table rows need, each once, as (passage, start, end)."""
    rows = [span[0] for span in spans if span[0].unit.header]
    return dict.fromkeys((row.passage, *row.unit.header) for row in rows if row.unit.header)


def _spans_used(spans: list[list[UnitEvidence]], e: UnitEvidence) -> int:
    grown = [*spans, [e]]
    return len(grown) + len(_headers(grown))


def _take_next(span: list[UnitEvidence], units: Sequence[ScoredUnit]) -> None:
    last = span[-1]
    for unit in units:
        e = unit.evidence
        if e.passage == last.passage and e.index == last.index + 1 and _adjacent(span, e):
            span.append(e)
            return


def _bounds(spans: list[list[UnitEvidence]], passages: Sequence[ReaderPassage]) -> list[Span]:
    quoted: dict[tuple[int, int, int], None] = {}
    headers = set(_headers(spans))
    for span in spans:
        unit = span[0].unit
        if unit.header:
            quoted[span[0].passage, *unit.header] = None
        if unit.header or (span[0].passage, unit.start, unit.end) not in headers:
            quoted[span[0].passage, unit.start, span[-1].unit.end] = None
    bounds = [Span(*key) for key in quoted]
    return [bound for bound in bounds if bound.end <= len(passages[bound.passage].text)]
