"""Rerank, version 1: a second, closer look at the best candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
