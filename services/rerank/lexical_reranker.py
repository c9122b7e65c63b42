"""The built-in reranker behind the ``Reranker`` port; the model itself is in ``lexical``."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.contracts.retrieval.v1.api import Passage
from appliance.language.query import AnalysedQuery, DocumentFrequencies
from appliance.language.terms import PassageTerms
from services.rerank.lexical import Candidate, score


class LexicalReranker:
    """Implements ``Reranker``; no model file, no state."""

    def order(
        self, query: AnalysedQuery, passages: Sequence[Passage], terms: Sequence[PassageTerms], statistics: DocumentFrequencies
    ) -> list[float]:
        """See the contract."""
        candidates = [
            Candidate(
                passage=analysed,
                fused=passage.legs.get("fusion", passage.score),
                cosine=passage.legs.get("dense"),
                bm25=passage.legs.get("bm25"),
                heading=passage.heading_path,
                document=passage.document_id,
            )
            for passage, analysed in zip(passages, terms, strict=True)
        ]
        return score(query, candidates, statistics)
