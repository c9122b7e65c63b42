"""Hybrid search: dense ‖ BM25, both filtered by the principal's access inside the index, then fusion, then rerank.

A leg that fails is left out and named in ``degraded``; the other still answers. Nothing is filtered after the indexes for access:
the filter *is* the query (docs/acl.md); the catalogue read at the end repeats it only as a second lock on the same door.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Generic, TypeVar

from appliance.contracts.rerank.v1.api import Reranker
from appliance.contracts.retrieval.v1.api import Passage, SearchQuery, SearchResult
from appliance.identity.principal import Principal
from appliance.kit import span_attributes as names
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.logging import get_logger
from appliance.kit.telemetry import span
from appliance.language.query import AnalysedQuery, analyse_query
from appliance.language.terms import PassageTerms
from services.retrieval import metrics
from services.retrieval.dense_leg import DenseLeg, DensePair
from services.retrieval.domain import AccessFilter, Hit
from services.retrieval.fusion import FusedHit, dense_leg, fuse, lexical_leg
from services.retrieval.ports import TextIndex, VectorIndex
from services.retrieval.presence import Presence
from services.retrieval.settings import RetrievalSettings
from services.retrieval.sqlalchemy_chunks import SqlChunks

log = get_logger(__name__)
MAX_QUERY_CHARACTERS: Final = 20_000
MAX_TOP_K: Final = 50
VectorIndexT = TypeVar("VectorIndexT", bound=VectorIndex)
_FILTERS: Final = frozenset({"media_type", "language", "name"})


class HybridSearch(Generic[VectorIndexT]):
    """Implements the ``Retrieval`` contract."""

    def __init__(
        self, chunks: SqlChunks, text: TextIndex, leg: DenseLeg[VectorIndexT],
        reranker: Reranker | None, presence: Presence, settings: RetrievalSettings,
    ) -> None:  # fmt: skip
        self._chunks, self._text, self._leg = chunks, text, leg
        self._reranker, self._presence, self._settings = reranker, presence, settings

    def has_documents(self, spaces: frozenset[str]) -> bool:
        """See the contract."""
        return self._presence.any_in(spaces)

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        """See the contract."""
        access = await self._access(query, principal)
        analysed = analyse_query(query.text)
        clock = _Clock()
        with span("retrieval.search") as current, self._leg.use() as pair:
            knows = pair is not None and analysed.language.value in pair.encoder.languages
            bm25, dense, degraded = await self._legs(query.text, analysed, access, clock, pair if knows else None)
            fused = fuse([lexical_leg(_pairs(bm25)), dense_leg(_pairs(dense), knows_language=knows)])[: self._settings.rerank_depth]
            clock.lap("fuse")
            rows = await self._chunks.passages([hit.chunk_id for hit in fused], access)
            clock.lap("read")
            with span("retrieval.rerank") as reranked:
                reranked.set_attribute("appliance.candidates", len(rows))
                ranked = self._ranked(query, analysed, [hit for hit in fused if hit.chunk_id in rows], rows, bm25, dense if knows else [])
            clock.lap("rerank")
            if current.is_recording():
                current.set_attributes({names.KIND: "retriever", "appliance.top_k": query.top_k, "appliance.spaces": len(access.spaces)})
                current.set_attributes({names.PASSAGES: len(ranked), names.SOURCES: names.distinct(passage.document_id for passage in ranked)})
                current.set_attribute("appliance.degraded", degraded)
        return SearchResult(tuple(ranked), analysed.language.value, clock.laps, degraded)

    async def _access(self, query: SearchQuery, principal: Principal) -> AccessFilter:
        if not query.text.strip() or len(query.text) > MAX_QUERY_CHARACTERS:
            raise ApplianceError("invalid_request", "the query is empty or too long", hint=f"1 to {MAX_QUERY_CHARACTERS:,} characters")
        if not 1 <= query.top_k <= MAX_TOP_K:
            raise ApplianceError("invalid_request", f"top_k must be 1 to {MAX_TOP_K}", hint="ask for fewer passages")
        unknown = sorted(set(query.filters) - _FILTERS)
        if unknown:
            raise ApplianceError("invalid_request", f"unknown filter {unknown[0]!r}", hint="filters: " + ", ".join(sorted(_FILTERS)))
        readable = principal.readable(query.spaces)
        if query.spaces is not None and set(query.spaces) - readable:
            raise not_found("space")
        documents = query.document_ids
        if "name" in query.filters:
            named = await self._chunks.documents_named(query.filters["name"], readable)
            documents = tuple(named if documents is None else sorted(set(named) & set(documents)))
        return AccessFilter(readable, documents, query.filters.get("media_type"), query.filters.get("language"))

    async def _legs(
        self, text: str, analysed: AnalysedQuery, access: AccessFilter, clock: _Clock, pair: DensePair[VectorIndexT] | None
    ) -> tuple[list[Hit], list[Hit], tuple[str, ...]]:
        if not self._presence.any_in(access.spaces):
            return [], [], ()
        lexical = asyncio.create_task(asyncio.to_thread(self._text.search, analysed.terms, access, self._settings.leg_depth))
        degraded: list[str] = []
        dense: list[Hit] = []
        try:
            dense = await self._dense(text, access, pair)
        except Exception:
            log.exception("dense_leg_failed")
            metrics.search_degraded_total.labels("dense").inc()
            degraded.append("dense")
        clock.lap("dense")
        try:
            bm25 = await lexical
        except Exception as exc:
            log.exception("bm25_leg_failed")
            metrics.search_degraded_total.labels("bm25").inc()
            if not dense:
                raise ApplianceError("unavailable", "the text index cannot answer", hint="run: appliance doctor") from exc
            bm25, degraded = [], [*degraded, "bm25"]
        clock.lap("bm25")
        return bm25, dense, tuple(degraded)

    async def _dense(self, text: str, access: AccessFilter, pair: DensePair[VectorIndexT] | None) -> list[Hit]:
        """Nothing when the encoder cannot read the language: fusion would give the leg no say, so its time is saved."""
        if pair is None:
            return []
        vectors = await pair.encoder.embed([text])
        return await asyncio.to_thread(pair.index.search, vectors[0], access, self._settings.leg_depth)

    def _ranked(
        self, query: SearchQuery, analysed: AnalysedQuery, fused: Sequence[FusedHit],
        rows: Mapping[int, tuple[Passage, PassageTerms]], bm25: Sequence[Hit], dense: Sequence[Hit],
    ) -> list[Passage]:  # fmt: skip
        lexical, cosines = dict(_pairs(bm25)), dict(_pairs(dense))
        passages = [_with_legs(rows[hit.chunk_id][0], hit, lexical, cosines) for hit in fused]
        rerank = self._settings.rerank if query.rerank is None else query.rerank
        if rerank and self._reranker is not None and passages:
            terms = [rows[hit.chunk_id][1] for hit in fused]
            scores = self._reranker.order(analysed, passages, terms, self._text)
            passages = [
                replace(passage, score=score, legs={**passage.legs, "rerank": score}) for passage, score in zip(passages, scores, strict=True)
            ]
            passages.sort(key=lambda passage: -passage.score)
        return passages[: query.top_k]


class _Clock:
    """Seconds by stage, and the same into the histogram."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to ``stage``."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        metrics.retrieval_seconds.labels(stage).observe(now - self._last)
        self._last = now


def _pairs(hits: Sequence[Hit]) -> list[tuple[int, float]]:
    return [(hit.chunk_id, hit.score) for hit in hits]


def _with_legs(passage: Passage, hit: FusedHit, lexical: Mapping[int, float], cosines: Mapping[int, float]) -> Passage:
    legs = {"fusion": hit.score}
    if (bm25 := lexical.get(hit.chunk_id)) is not None:
        legs["bm25"] = bm25
    if (cosine := cosines.get(hit.chunk_id)) is not None:
        legs["dense"] = cosine
    return replace(passage, score=hit.score, legs=legs)
