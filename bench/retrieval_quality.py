"""Ranking quality on question/passage collections: every leg, naive RRF, fusion, fusion + reranker.

    python -m bench.retrieval_quality --data DIR [--json FILE]

One index holds the passages of both languages; gold is the passage in the question's language. At sentence level every
sentence is a chunk of its own and gold is the sentence that holds the answer; `support` of the reranker then sees which
sentences belong to one document, as in production, and the row `rerank alone` shows the ranking without that knowledge.
The collection (`xquad.<lang>.{passages,questions}.jsonl`) is not part of the product: without it the bench stops with 2.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from appliance.language.query import AnalysedQuery, DocumentFrequencies, Language, analyse_query
from appliance.language.terms import PassageTerms, passage_terms
from bench import evaluation_set as data
from bench.report import Report, arguments
from bench.search_legs import DenseLeg, Hits, TextLeg
from services.rerank.lexical import Candidate, score
from services.retrieval.fusion import FusedHit, dense_leg, fuse, lexical_leg

LANGUAGES: Final = ("en", "ru")
ENCODER_KNOWS: Final = frozenset({Language.EN})
LEG_DEPTH: Final = 100
RERANK_DEPTH: Final = 40
TARGETS: Final = {
    ("passage", "en", "fusion+rerank", "R@1"): 0.95,
    ("passage", "en", "fusion+rerank", "MRR@10"): 0.97,
    ("passage", "ru", "fusion+rerank", "R@1"): 0.92,
    ("passage", "ru", "fusion+rerank", "MRR@10"): 0.95,
    ("sentence", "en", "fusion+rerank", "R@5"): 0.955,
    ("sentence", "en", "fusion+rerank", "MRR@10"): 0.86,
    ("sentence", "ru", "fusion+rerank", "R@5"): 0.89,
    ("sentence", "ru", "fusion+rerank", "MRR@10"): 0.80,
}


@dataclass(frozen=True)
class Collection:
    """Chunks of both languages in one index. `documents[i]` is the passage that chunk i belongs to."""

    level: str
    texts: list[str]
    documents: list[tuple[str, str]]
    terms: list[PassageTerms]
    text_leg: TextLeg
    dense_leg: DenseLeg


def build(level: str, passages: dict[str, list[data.Passage]]) -> tuple[Collection, dict[tuple[str, str], list[data.Span]]]:
    """Index all chunks; also answers where the chunks of each passage lie."""
    texts: list[str] = []
    documents: list[tuple[str, str]] = []
    spans: dict[tuple[str, str], list[data.Span]] = {}
    for language, items in passages.items():
        for passage in items:
            key = (language, passage.id)
            whole = [(0, len(passage.text))]
            for start, end in whole if level == "passage" else data.plain_sentences(passage.text):
                spans.setdefault(key, []).append((start, end, len(texts)))
                texts.append(passage.text[start:end])
                documents.append(key)
    terms = [passage_terms(text) for text in texts]
    return Collection(level, texts, documents, terms, TextLeg(terms), DenseLeg(texts)), spans


def rank_legs(bm25: Hits, dense: Hits, query: AnalysedQuery) -> list[FusedHit]:
    """Production fusion."""
    return fuse([lexical_leg(bm25), dense_leg(dense, knows_language=query.language in ENCODER_KNOWS)])


def rerank(
    query: AnalysedQuery,
    fused: Sequence[FusedHit],
    bm25: Hits,
    dense: Hits,
    collection: Collection,
    *,
    siblings: bool,
    statistics: DocumentFrequencies | None = None,
) -> list[tuple[int, float]]:
    """Production reranking of the head of `fused`; the tail keeps its order."""
    lexical, cosines = dict(bm25), dict(dense) if query.language in ENCODER_KNOWS else {}
    head = fused[:RERANK_DEPTH]
    candidates = [
        Candidate(
            passage=collection.terms[hit.chunk_id],
            fused=hit.score,
            cosine=cosines.get(hit.chunk_id),
            bm25=lexical.get(hit.chunk_id),
            document=collection.documents[hit.chunk_id] if siblings else None,
        )
        for hit in head
    ]
    scores = score(query, candidates, statistics or collection.text_leg)
    return sorted(((hit.chunk_id, s) for hit, s in zip(head, scores, strict=True)), key=lambda pair: -pair[1])


def reciprocal_rank_fusion(legs: Sequence[Hits], k: int = 60) -> list[int]:
    """Naive RRF (Cormack, Clarke and Büttcher 2009), for comparison."""
    scores: dict[int, float] = {}
    for leg in legs:
        for rank, (chunk, _) in enumerate(leg):
            scores[chunk] = scores.get(chunk, 0.0) + 1 / (k + rank + 1)
    return sorted(scores, key=lambda chunk: -scores[chunk])


def quality(runs: Sequence[Sequence[int]], gold: Sequence[int]) -> dict[str, float]:
    """R@1, R@5, R@10 and MRR@10; one gold chunk a question."""
    ranks = [list(run[:10]).index(g) if g in run[:10] else None for run, g in zip(runs, gold, strict=True)]
    found = [rank for rank in ranks if rank is not None]
    total = max(len(ranks), 1)
    recall = {f"R@{k}": sum(rank < k for rank in found) / total for k in (1, 5, 10)}
    return recall | {"MRR@10": sum(1 / (rank + 1) for rank in found) / total}


def run_level(level: str, source: Path) -> Iterator[tuple[str, str, str, float]]:
    """Yield (language, leg, metric, value) for one level."""
    passages = {language: data.passages(source, language) for language in LANGUAGES}
    collection, spans = build(level, passages)
    for language in LANGUAGES:
        questions = [(q, data.span_of(q, spans[language, q.passage])) for q in data.questions(source, language)]
        asked = [(q, gold) for q, gold in questions if gold is not None]
        vectors = collection.dense_leg.encode([q.question for q, _ in asked])
        runs: dict[str, list[list[int]]] = {}
        seconds: list[float] = []
        for (question, _), vector in zip(asked, vectors, strict=True):
            query = analyse_query(question.question)
            bm25 = collection.text_leg.search(query.terms, LEG_DEPTH)
            dense = collection.dense_leg.search(vector, LEG_DEPTH)
            started = time.perf_counter()
            fused = rank_legs(bm25, dense, query)
            best = rerank(query, fused, bm25, dense, collection, siblings=True)
            seconds.append(time.perf_counter() - started)
            alone = rerank(query, fused, bm25, dense, collection, siblings=False)
            runs.setdefault("bm25", []).append([chunk for chunk, _ in bm25])
            runs.setdefault("dense", []).append([chunk for chunk, _ in dense])
            runs.setdefault("naive rrf", []).append(reciprocal_rank_fusion([bm25, dense]))
            runs.setdefault("fusion", []).append([hit.chunk_id for hit in fused])
            if level == "sentence":
                runs.setdefault("rerank alone", []).append([chunk for chunk, _ in alone])
            runs.setdefault("fusion+rerank", []).append([chunk for chunk, _ in best])
        for leg, ranked in runs.items():
            for metric, value in quality(ranked, [gold for _, gold in asked if gold is not None]).items():
                yield language, leg, metric, value
        for name, share in (("p50", 50), ("p95", 95)):
            yield language, "fusion+rerank", f"{name} ms", float(np.percentile(seconds, share)) * 1e3


def main() -> int:
    """Print the table; exit code 2 without data."""
    options = arguments(__doc__).parse_args()
    source = data.folder(options.data)
    if source is None:
        return 2
    report = Report("retrieval-quality", options.json)
    for level in ("passage", "sentence"):
        for language, leg, metric, value in run_level(level, source):
            unit = "ms" if metric.endswith("ms") else "share"
            target = TARGETS.get((level, language, leg, metric)) if unit == "share" else (6.0 if "p50" in metric else None)
            report.add(f"{level} {language} {leg} {metric}", value, unit, target, higher=unit == "share")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
