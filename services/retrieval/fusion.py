"""Merging the ranked lists of the search legs into one, by score, with what each leg gave to each hit.

Owns the merge only; it never looks at text. Chosen over reciprocal rank fusion because ranks forget how sure a leg was
and count a leg that cannot read the question as much as one that can: on a Russian question an English-only encoder
ranks noise, and plain RRF halves recall@1.

Method: a convex combination of normalised scores ("TM2C2" in Bruch, Gai and Ingber 2023, *An Analysis of Fusion Functions
for Hybrid Retrieval*), each leg divided by its ceiling: the theoretical one where there is one (cosine: 1), otherwise the
best score of this search (BM25).

Invariants:
    1. A leg that does not know the question's language has no say while a leg that does found anything.
    2. With one leg left, the order is exactly that leg's order.
    3. Contributions of a hit add up to its score, which is in [0, 1] for scores within their ceilings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEXICAL_WEIGHT: Final = 0.5
DENSE_WEIGHT: Final = 1.0
"""1 : 2, the middle of a flat optimum (0.4 to 0.6 : 1 differ by 0.002 MRR@10) on XQuAD English passages and sentences."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One ranked list.

    Attributes:
        name: for explanations, e.g. `bm25`.
        hits: (chunk id, score), best first; higher is better.
        knows_language: whether the leg's model can read the question.
        weight: say of this leg relative to the others, > 0.
        ceiling: the best score there can be, or None to take the best of `hits`.
    """

    name: str
    hits: Sequence[tuple[int, float]]
    knows_language: bool
    weight: float
    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class FusedHit:
    """A chunk with its fused score and, for each leg that had a say, the part of the score that came from it."""

    chunk_id: int
    score: float
    contributions: tuple[tuple[str, float], ...]


def lexical_leg(hits: Sequence[tuple[int, float]]) -> Leg:
    """BM25: reads every language."""
    return Leg("bm25", hits, knows_language=True, weight=LEXICAL_WEIGHT)


def dense_leg(hits: Sequence[tuple[int, float]], *, knows_language: bool) -> Leg:
    """Cosine similarity of unit vectors; `knows_language` comes from what the encoder declares."""
    return Leg("dense", hits, knows_language=knows_language, weight=DENSE_WEIGHT, ceiling=1.0)


def fuse(legs: Sequence[Leg]) -> list[FusedHit]:
    """Merge the legs, best first; equal scores keep the order in which the legs named them.

    A chunk that a leg did not return gets the least score that the leg did return when the ceiling is theoretical (its
    true score is at most that and usually close), and 0 otherwise (BM25 gives 0 to a chunk without a term in common).
    """
    heard = [leg for leg in legs if leg.hits and leg.knows_language] or [leg for leg in legs if leg.hits]
    chunks = dict.fromkeys(chunk for leg in heard for chunk, _ in leg.hits)
    total = sum(leg.weight for leg in heard)
    tables = [(leg.name, *_parts(leg, leg.weight / total)) for leg in heard]
    hits = []
    for chunk in chunks:
        contributions = tuple((name, parts.get(chunk, absent)) for name, parts, absent in tables)
        hits.append(FusedHit(chunk, sum(part for _, part in contributions), contributions))
    hits.sort(key=lambda hit: -hit.score)
    return hits


def _parts(leg: Leg, share: float) -> tuple[dict[int, float], float]:
    """Return the contribution of `leg` to each chunk it found, and to any other chunk."""
    ceiling = leg.ceiling if leg.ceiling is not None else max(score for _, score in leg.hits)
    scale = share / ceiling if ceiling > 0 else 0.0
    parts: dict[int, float] = {}
    for chunk, score in leg.hits:
        parts.setdefault(chunk, scale * score)
    return parts, min(parts.values()) if leg.ceiling is not None else 0.0
