"""How well each unit of the retrieved passages meets the question: features only, no decision.

Owns the passages as the reader sees them and the features of their units. The features reuse the reranker's matching.
What is chosen from them is `selection`; whether it is enough is `answerability`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.language.matching import QueryProfile, meets_type, pair_strength, profile_query
from appliance.language.query import DocumentFrequencies, analyse_query, term_weights
from appliance.language.terms import PassageTerms, analyse, passage_terms
from services.llm.reader.sentences import Unit, UnitKind, split_units

BEFORE: Final = 0.8
AFTER: Final = 0.6
ABOVE: Final = 0.8
"""What a term counts when it stands in the sentence before (it names what a pronoun means), in the one after, or above
(heading, document name, table header). Priors: order before > after follows from how text refers back."""


@dataclass(frozen=True, slots=True)
class ReaderPassage:
    """A retrieved passage, best first in the list that the reader gets.

    Attributes:
        number: the citation number `n` of `[n]`.
        text: the passage.
        score: final ranking score, comparable within this list.
        cosine: similarity of passage and question, None when the encoder does not know the question's language.
        document: name of the document.
        heading: titles above the passage, outermost first.
    """

    number: int
    text: str
    score: float
    cosine: float | None = None
    document: str = ""
    heading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitEvidence:
    """Features of one unit; shares are weighted by the terms' rarity and lie in [0, 1].

    Attributes:
        passage: index of the passage in the list.
        index: index of the unit within its passage.
        unit: where it is.
        own: share of the question's terms inside the unit.
        near: the same with the neighbours and what stands above counted at a discount.
        whole: the same over the whole passage and what stands above it.
        names: share of the question's names and numbers in the passage and above it; 1 when the question has none.
        pairs, grams, answer_type: as in `appliance.language.matching.PassageFeatures`, for the unit.
        behind: score of the best passage minus the score of this one, >= 0.
    """

    passage: int
    index: int
    unit: Unit
    own: float
    near: float
    whole: float
    names: float
    pairs: float
    grams: float
    answer_type: float
    behind: float


class PassageStatistics:
    """Document frequencies over the given passages: what is left when no index statistics are at hand."""

    def __init__(self, passages: Sequence[ReaderPassage]) -> None:
        self._sets = [set(analyse(passage.text)) for passage in passages]
        self.documents = len(passages)

    def document_frequency(self, term: str) -> int:
        """Passages that hold `term`."""
        return sum(term in terms for terms in self._sets)


def profile_question(question: str, passages: Sequence[ReaderPassage], statistics: DocumentFrequencies | None) -> QueryProfile:
    """Analyse the question against collection statistics, or against the passages themselves."""
    query = analyse_query(question)
    return profile_query(query, term_weights(query.terms, statistics or PassageStatistics(passages)))


def gather(profile: QueryProfile, passages: Sequence[ReaderPassage]) -> list[UnitEvidence]:
    """Features of every quotable unit (headings are context, not answers), in text order."""
    best = max((passage.score for passage in passages), default=0.0)
    evidence: list[UnitEvidence] = []
    for number, passage in enumerate(passages):
        evidence.extend(_of_passage(profile, number, passage, best - passage.score))
    return evidence


def _of_passage(profile: QueryProfile, number: int, passage: ReaderPassage, behind: float) -> list[UnitEvidence]:
    units = split_units(passage.text)
    terms = [passage_terms(passage.text[unit.start : unit.end]) for unit in units]
    strengths = [_strengths(profile, t.terms) for t in terms]
    titles = [analyse(title) for title in (passage.document, *passage.heading)]
    above = [ABOVE * s for s in _strengths(profile, [term for title in titles for term in title])]
    whole = [max(column) for column in zip(above, *strengths, strict=True)]
    names = [whole[i] for i, name in enumerate(profile.query.names) if name]
    section = above
    found = []
    for index, unit in enumerate(units):
        if unit.kind is UnitKind.HEADING:
            section = [max(a, ABOVE * s) for a, s in zip(above, strengths[index], strict=True)]
            continue
        own = strengths[index]
        context = _context(strengths, units, index, section, _header(profile, unit, passage.text))
        hits = profile.matcher.hits(terms[index].terms)
        found.append(
            UnitEvidence(
                passage=number,
                index=index,
                unit=unit,
                own=_share(profile, own),
                near=_share(profile, [max(pair) for pair in zip(own, context, strict=True)]),
                whole=_share(profile, whole),
                names=sum(names) / len(names) if names else 1.0,
                pairs=pair_strength(profile.weights, hits),
                grams=_grams(profile, terms[index]),
                answer_type=meets_type(profile.query.expects, terms[index].kinds, hits),
                behind=behind,
            )
        )
    return found


def _strengths(profile: QueryProfile, terms: Sequence[str]) -> list[float]:
    """For each term of the question the best match among `terms`."""
    best = [0.0] * len(profile.weights)
    for _, i, strength in profile.matcher.hits(terms):
        best[i] = max(best[i], strength)
    return best


def _header(profile: QueryProfile, unit: Unit, text: str) -> list[float]:
    """Match the header row of a table row; nothing for any other unit."""
    return _strengths(profile, analyse(text[unit.header[0] : unit.header[1]]) if unit.header else ())


def _context(strengths: list[list[float]], units: list[Unit], index: int, above: list[float], header: list[float]) -> list[float]:
    """Return what the surroundings of a unit add, per term; a table row has its header and no neighbours."""
    if units[index].kind is UnitKind.ROW:
        return [max(a, ABOVE * h) for a, h in zip(above, header, strict=True)]
    nothing = [0.0] * len(above)
    before = strengths[index - 1] if index else nothing
    after = strengths[index + 1] if index + 1 < len(units) else nothing
    return [max(a, BEFORE * b, AFTER * c) for a, b, c in zip(above, before, after, strict=True)]


def _share(profile: QueryProfile, strengths: Sequence[float]) -> float:
    return sum(w * s for w, s in zip(profile.weights, strengths, strict=True)) / profile.total


def _grams(profile: QueryProfile, terms: PassageTerms) -> float:
    return sum(share for gram, share in profile.grams if gram in terms.joined)
