"""The built-in reranker: a linear model over word-match features, and over the cosine when the encoder knows the language.

Owns the weights and the score. Does not own matching (`features`) or the choice of candidates (`fusion`). It reads no
model file, so it works in a box without a cross-encoder; forty passages of 120 words take about 2 ms on one core.

Provenance of the weights: listwise softmax regression on XQuAD passages and sentences together (Artetxe et al. 2020, 48
articles, English and Russian), then rounded. Cross-validated over eight folds of articles: MRR@10 0.977 / 0.861 (English
passages / sentences), and for the weights without cosine, fitted on both languages, 0.957 / 0.824 (Russian); the rounded
weights give the same. With two more features, since dropped, weights fitted on English without its cosine ranked Russian at
0.957 / 0.809, those fitted on Russian ranked English without cosine at 0.966 / 0.837. The weight of `heading` is a prior,
not fitted: those articles have no headings. `python -m bench.retrieval_quality` measures all of it again except the fit.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final

from appliance.language.matching import QueryProfile, passage_features, profile_query
from appliance.language.query import AnalysedQuery, DocumentFrequencies, term_weights
from appliance.language.terms import PassageTerms, analyse


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrieved chunk.

    Attributes:
        passage: its term list, decoded from the blob beside the chunk.
        fused: score of `fusion.fuse`, in [0, 1].
        cosine: similarity with the question, or None when the encoder does not know the question's language or the
            dense leg did not return the chunk.
        bm25: score of the text index, or None when it did not return the chunk.
        heading: titles above the chunk, outermost first, the document's title included.
        document: identity of the document, so that its chunks can vouch for each other; None for a chunk on its own.
    """

    passage: PassageTerms
    fused: float
    cosine: float | None = None
    bm25: float | None = None
    heading: tuple[str, ...] = ()
    document: Hashable | None = None


@dataclass(frozen=True, slots=True)
class RerankWeights:
    """Weight of each feature. Features are in [0, 1], `answer_type` in [-1, 1].

    Attributes:
        bm25: of the BM25 score divided by the best among the candidates.
        support: of the best fused score among the other candidates of the same document.
        heading: of the weighted share of the question's terms that the headings hold.
        other names: see `PassageFeatures`.
    """

    coverage: float
    sentence: float
    pairs: float
    grams: float
    answer_type: float
    bm25: float
    cosine: float
    support: float
    heading: float

    @property
    def total(self) -> float:
        """Sum of the weights: the score of a passage that is perfect in every respect."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


WITH_DENSE: Final = RerankWeights(coverage=3.5, sentence=2.5, pairs=1.0, grams=1.0, answer_type=0.8, bm25=1.0, cosine=9.0, support=7.5, heading=1.0)
WITHOUT_DENSE: Final = RerankWeights(
    coverage=0.5, sentence=3.0, pairs=1.0, grams=3.0, answer_type=0.8, bm25=4.0, cosine=0.0, support=4.0, heading=1.0
)


def score(query: AnalysedQuery, candidates: Sequence[Candidate], statistics: DocumentFrequencies) -> list[float]:
    """Relevance of each candidate, in the order given: at most 1, higher is better, comparable within one question only."""
    return score_profile(profile_query(query, term_weights(query.terms, statistics)), candidates)


def score_profile(profile: QueryProfile, candidates: Sequence[Candidate]) -> list[float]:
    """`score` for a caller that has the question's profile already."""
    if not candidates:
        return []
    cosines = [c.cosine for c in candidates if c.cosine is not None]
    weights = WITH_DENSE if cosines else WITHOUT_DENSE
    least_cosine = min(cosines, default=0.0)
    best_bm25 = max((c.bm25 or 0.0 for c in candidates), default=0.0) or 1.0
    support = _support(candidates)
    total = weights.total
    return [
        _score(
            profile,
            c,
            weights,
            cosine=least_cosine if c.cosine is None else c.cosine,
            bm25=(c.bm25 or 0.0) / best_bm25,
            support=s,
        )
        / total
        for c, s in zip(candidates, support, strict=True)
    ]


def _score(profile: QueryProfile, candidate: Candidate, weights: RerankWeights, *, cosine: float, bm25: float, support: float) -> float:
    found = passage_features(profile, candidate.passage)
    return (
        weights.coverage * found.coverage
        + weights.sentence * found.sentence
        + weights.pairs * found.pairs
        + weights.grams * found.grams
        + weights.answer_type * found.answer_type
        + weights.bm25 * bm25
        + weights.cosine * cosine
        + weights.support * support
        + weights.heading * (heading_share(profile, candidate.heading) if candidate.heading else 0.0)
    )


def _support(candidates: Sequence[Candidate]) -> list[float]:
    """For each candidate the best fused score among the *other* candidates of its document, 0 when there is none."""
    best: dict[Hashable, list[float]] = {}
    for candidate in candidates:
        if candidate.document is not None:
            best.setdefault(candidate.document, []).append(candidate.fused)
    top = {document: sorted(scores, reverse=True)[:2] for document, scores in best.items()}
    support = []
    for candidate in candidates:
        scores = top.get(candidate.document, [])
        others = scores[1:] if scores and candidate.fused >= scores[0] else scores
        support.append(others[0] if others else 0.0)
    return support


@lru_cache(maxsize=4096)
def _heading_terms(heading: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(term for title in heading for term in analyse(title)))


def heading_share(profile: QueryProfile, heading: tuple[str, ...]) -> float:
    """Weighted share of the question's terms that the headings hold, in [0, 1]."""
    strengths: dict[int, float] = {}
    for _, i, strength in profile.matcher.hits(_heading_terms(heading)):
        strengths[i] = max(strength, strengths.get(i, 0.0))
    return sum(profile.weights[i] * strength for i, strength in strengths.items()) / profile.total
