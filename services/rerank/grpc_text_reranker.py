"""A ``TextReranker`` that runs in the rerank service, on this machine or another.

Long lists go in several calls, one after the other: scores of the same query compare, whichever call they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from appliance.contracts.rerank.v1.api import Rerankers
from appliance.kit.errors import ApplianceError

MOST_BYTES: Final = 4 * 1024 * 1024
MOST_DOCUMENTS: Final = 64
MOST_CHARACTERS: Final = 512 * 64  # of one text: as many as a model of the usual context could look at


class GrpcTextReranker:
    """Implements ``TextReranker``; the channel under ``rerankers`` is closed by who opened it."""

    def __init__(self, rerankers: Rerankers, model: str, caller: str = "box", most_characters: int = MOST_CHARACTERS) -> None:
        self._rerankers, self._model, self._caller = rerankers, model, caller
        self._most_characters = most_characters

    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """See the contract; what the service raises, ``unavailable``, ``upstream_timeout``, ``upstream_failed``."""
        question = self._cut(query)
        scores: list[float] = []
        for part in self._parts([self._cut(document) for document in documents]):
            found = await self._rerankers.rerank(self._caller, self._model, question, part)
            if len(found) != len(part):
                raise ApplianceError("upstream_failed", "the rerank service answered with another number of scores", hint="see its log")
            scores.extend(found)
        return scores

    def close(self) -> None:
        """Nothing to free."""

    def _cut(self, text: str) -> str:
        return text[: self._most_characters].encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _parts(self, documents: Sequence[str]) -> Iterator[Sequence[str]]:
        part: list[str] = []
        held = 0
        for document in documents:
            size_bytes = len(document.encode())
            if part and (len(part) >= MOST_DOCUMENTS or held + size_bytes > MOST_BYTES):
                yield part
                part, held = [], 0
            part.append(document)
            held += size_bytes
        if part:
            yield part
