"""The built-in reranker over texts of the caller: as if retrieval had found them. No model file; the encoder helps where it knows the language."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from appliance.contracts.embed.v1.api import Encoder
from appliance.contracts.rerank.v1.api import Reranker
from appliance.contracts.retrieval.v1.api import Passage
from appliance.language.query import AnalysedQuery, analyse_query
from appliance.language.terms import passage_terms

QUERY_DOCUMENTS: Final = 64  # more is bulk work: it gives way to questions


class LexicalTextReranker:
    """Implements ``TextReranker``."""

    def __init__(self, reranker: Reranker, encoder: Encoder | None) -> None:
        self._reranker = reranker
        self._encoder = encoder

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Scores in (0, 1): the reranker's linear score through the logistic function, which keeps its order."""
        analysed = await asyncio.to_thread(analyse_query, query)
        cosines = await self._cosines(query, documents, analysed.language.value)
        passages = [_passage(index, text, cosine) for index, (text, cosine) in enumerate(zip(documents, cosines, strict=True))]
        scores = await asyncio.to_thread(self._scores, analysed, passages)
        return [1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score)))) for score in scores]

    def _scores(self, analysed: AnalysedQuery, passages: Sequence[Passage]) -> Sequence[float]:
        terms = [passage_terms(passage.text) for passage in passages]
        return self._reranker.order(analysed, passages, terms, _OwnStatistics([frozenset(one.terms) for one in terms]))

    def retire(self) -> None:
        """Nothing to free."""

    async def end(self) -> None:
        """Nothing to free."""

    async def _cosines(self, query: str, documents: Sequence[str], language: str) -> Sequence[float | None]:
        if self._encoder is None or language not in self._encoder.languages:
            return [None] * len(documents)
        vectors = await self._encoder.embed([query, *documents], background=len(documents) > QUERY_DOCUMENTS)
        return [float(cosine) for cosine in np.asarray(vectors[1:] @ vectors[0])]


class _OwnStatistics:
    """Document frequencies over the caller's own texts: those of the index would tell which words other people's documents hold."""

    def __init__(self, texts: Sequence[frozenset[str]]) -> None:
        self._texts = texts

    @property
    def documents(self) -> int:
        return len(self._texts)

    def document_frequency(self, term: str) -> int:
        return sum(term in text for text in self._texts)


def _passage(index: int, text: str, cosine: float | None) -> Passage:
    legs = {"fusion": 0.0} if cosine is None else {"fusion": max(cosine, 0.0), "dense": cosine}
    return Passage(index, f"text{index}", "", 1, "", None, (), 0, len(text), text, legs=legs)
