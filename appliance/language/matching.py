"""Features of one (question, passage) pair: numbers in [0, 1] that say how well the words of the question are met.

Owns matching and counting. Does not own the weights that turn features into a score: those are in `lexical`.
The work is done on *hits* only (positions where a term of the question occurs), so the cost per passage is one dictionary
lookup per term plus a few microseconds per hit.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.language.query import AnalysedQuery, AnswerType
from appliance.language.synonyms import STRENGTH, synonyms
from appliance.language.terms import PassageTerms

Hit = tuple[int, int, float]
"""Position in the passage, index of the question's term, strength of the match in (0, 1]."""

EXPECTED_KINDS: Final = {
    AnswerType.DATE: frozenset("ym"),
    AnswerType.NUMBER: frozenset("nwy"),
    AnswerType.PERSON: frozenset("cC"),
    AnswerType.PLACE: frozenset("cC"),
}
"""Kinds of `PassageTerms.kinds` that can answer a question of each type; other types expect nothing in particular."""

_PAIR_TERMS: Final = 4
"""Two neighbours of the question that stand further apart than this in the passage are no longer a pair."""
_SOFT_LEAST: Final = 0.7
_SOFT_DISCOUNT: Final = 0.8
_STEM_HEAD: Final = 4
_GRAM: Final = 3


class TermMatcher(dict[str, tuple[int, float] | None]):
    """passage term → (index of the question's term, strength), or None; fills itself as passages are read.

    A different term counts when the two share a head of four letters or more and Dice on the shared head,
    `2·head / (len + len)`, reaches 0.7: `договор` ~ `договорн` but not `контракт` ~ `контроль`. A listed synonym counts
    `synonyms.STRENGTH`.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__((other, (i, STRENGTH)) for i, term in enumerate(terms) for other in synonyms(term))
        self.update((term, (i, 1.0)) for i, term in enumerate(terms))
        self._heads: dict[str, list[tuple[int, str]]] = {}
        for i, term in enumerate(terms):
            if len(term) >= _STEM_HEAD and not term[0].isdigit():
                self._heads.setdefault(term[:_STEM_HEAD], []).append((i, term))

    def __missing__(self, term: str) -> tuple[int, float] | None:
        found: tuple[int, float] | None = None
        rivals = self._heads.get(term[:_STEM_HEAD])
        if rivals:
            found = self._nearest(term, rivals)
        self[term] = found
        return found

    @staticmethod
    def _nearest(term: str, rivals: list[tuple[int, str]]) -> tuple[int, float] | None:
        best, found = _SOFT_LEAST, None
        for i, rival in rivals:
            shared, limit = _STEM_HEAD, min(len(term), len(rival))
            while shared < limit and term[shared] == rival[shared]:
                shared += 1
            dice = 2 * shared / (len(term) + len(rival))
            if dice >= best:
                best, found = dice, (i, _SOFT_DISCOUNT * dice)
        return found

    def hits(self, terms: Sequence[str]) -> list[Hit]:
        """Every place in `terms` that matches, in order."""
        found = zip(range(len(terms)), map(self.__getitem__, terms), strict=True)
        return [(position, match[0], match[1]) for position, match in found if match]


@dataclass(frozen=True, slots=True)
class QueryProfile:
    """A question made ready to be compared with many passages.

    Attributes:
        query: the analysed question, n terms.
        weights: n positive term weights.
        total: their sum.
        matcher: shared by all passages of one search, not by threads.
        grams: character trigrams of the terms with their share of the weight; shares sum to 1.
    """

    query: AnalysedQuery
    weights: list[float]
    total: float
    matcher: TermMatcher
    grams: tuple[tuple[str, float], ...]


def profile_query(query: AnalysedQuery, weights: list[float]) -> QueryProfile:
    """Prepare a question; `weights` comes from `query_analysis.term_weights`."""
    total = sum(weights) or 1.0
    shares: dict[str, float] = {}
    for term, weight in zip(query.terms, weights, strict=True):
        edged = f" {term} "
        grams = [edged[i : i + _GRAM] for i in range(len(edged) - _GRAM + 1)] or [edged]
        for gram in grams:
            shares[gram] = shares.get(gram, 0.0) + weight / total / len(grams)
    return QueryProfile(query, weights, total, TermMatcher(query.terms), tuple(shares.items()))


@dataclass(frozen=True, slots=True)
class PassageFeatures:
    """How one passage meets one question; each in [0, 1] unless said otherwise.

    Attributes:
        coverage: weighted share of the question's terms that occur anywhere.
        sentence: the same within the best single sentence.
        pairs: weighted share of neighbouring terms of the question that are close in the passage too.
        grams: weighted share of the question's character trigrams that occur: survives inflection and typing errors.
        answer_type: 1 the best sentence holds a new number, date or name as the question expects, -1 it does not, 0
            the question expects nothing in particular.
    """

    coverage: float = 0.0
    sentence: float = 0.0
    pairs: float = 0.0
    grams: float = 0.0
    answer_type: float = 0.0


def passage_features(profile: QueryProfile, passage: PassageTerms) -> PassageFeatures:
    """Compare one passage with the question."""
    grams = sum(share for gram, share in profile.grams if gram in passage.joined)
    hits = profile.matcher.hits(passage.terms)
    if not hits:
        return PassageFeatures(grams=grams, answer_type=_answer_type(profile.query.expects, passage, hits, 0))
    sentence, best = _best_sentence(profile, hits, passage.starts)
    return PassageFeatures(
        coverage=_coverage(profile, hits),
        sentence=sentence,
        pairs=pair_strength(profile.weights, hits),
        grams=grams,
        answer_type=_answer_type(profile.query.expects, passage, hits, best),
    )


def _coverage(profile: QueryProfile, hits: list[Hit]) -> float:
    best: dict[int, float] = {}
    for _, i, strength in hits:
        if strength > best.get(i, 0.0):
            best[i] = strength
    return sum(profile.weights[i] * strength for i, strength in best.items()) / profile.total


def _best_sentence(profile: QueryProfile, hits: list[Hit], starts: tuple[int, ...]) -> tuple[float, int]:
    """Coverage of the best sentence and its index."""
    weights = profile.weights
    seen: dict[int, dict[int, float]] = {}
    for position, i, strength in hits:
        strengths = seen.setdefault(bisect_right(starts, position) - 1, {})
        if strength > strengths.get(i, 0.0):
            strengths[i] = strength
    score, best = 0.0, 0
    for index, strengths in seen.items():
        total = sum(weights[i] * strength for i, strength in strengths.items())
        if total > score:
            score, best = total, index
    return score / profile.total, best


def pair_strength(weights: list[float], hits: list[Hit]) -> float:
    """Weighted share of neighbouring terms of the question that stand within four terms of each other; 0.7 if reversed."""
    if len(weights) < 2:
        return 0.0
    strength_of = [0.0] * len(weights)
    for later, (position, i, strength) in enumerate(hits):
        for earlier in range(later - 1, max(-1, later - 1 - _PAIR_TERMS), -1):
            before, j, other = hits[earlier]
            gap = position - before
            if gap > _PAIR_TERMS:
                break
            if i - j in (1, -1):
                order = 1.0 if i > j else 0.7
                at = max(i, j)
                strength_of[at] = max(strength_of[at], order * strength * other / gap**0.5)
    both = [weights[i] + weights[i - 1] for i in range(1, len(weights))]
    return sum(b * s for b, s in zip(both, strength_of[1:], strict=True)) / sum(both)


def _answer_type(expects: AnswerType, passage: PassageTerms, hits: list[Hit], sentence: int) -> float:
    if not passage.starts:
        return 0.0
    start = passage.starts[sentence]
    end = passage.starts[sentence + 1] if sentence + 1 < len(passage.starts) else len(passage.terms)
    return meets_type(expects, passage.kinds[start:end], [(p - start, i, s) for p, i, s in hits if start <= p < end])


def meets_type(expects: AnswerType, kinds: str, hits: list[Hit]) -> float:
    """1 when `kinds` holds what a question of this type asks for outside the `hits`, -1 when not, 0 when unsure."""
    wanted = EXPECTED_KINDS.get(expects)
    if wanted is None:
        return 0.0
    known = {position for position, _, _ in hits}
    new = {kind for position, kind in enumerate(kinds) if position not in known}
    if new & wanted:
        return 1.0
    return 0.0 if expects is AnswerType.DATE and new & {"n", "w"} else -1.0
