"""Rerank, version 1: a second, closer look at the best candidates.

``Reranker`` orders passages that search has found, ``TextReranker`` any texts; ``Rerankers`` is a service with several of the latter (rerank.proto).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from appliance.contracts.retrieval.v1.api import Passage
from appliance.language.query import AnalysedQuery, DocumentFrequencies
from appliance.language.terms import PassageTerms


class Reranker(Protocol):
    """Scores passages for a question; higher is better; comparable within one call only."""

    def order(
        self, query: AnalysedQuery, passages: Sequence[Passage], terms: Sequence[PassageTerms], statistics: DocumentFrequencies
    ) -> list[float]:
        """One score per passage. ``terms[i]`` are the analysed terms of ``passages[i]``; ``legs`` hold the earlier scores."""
        ...


class TextReranker(Protocol):
    """Relevance of texts to a query."""

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """One score in [0, 1] per document, same order; higher is better. What is too long is cut."""
        ...


class RerankerCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a service; attributes as those of ``EncoderCard``."""

    alias: str
    engine: str
    languages: tuple[str, ...] = ()
    max_context: int = 0
    problem: str = ""


class Rerankers(Protocol):
    """Several text rerankers behind one door. ``caller`` names the service that asks; it is what the bearer of a call stands for."""

    async def rerank(self, caller: str, model: str, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Scores by the model ``model``, see ``TextReranker``; raises ``model_not_found`` and what the reranker raises."""
        ...

    async def models(self, caller: str) -> Sequence[RerankerCard]:
        """What may be asked for; loads nothing."""
        ...
