"""The rerank service: several text rerankers behind the contract ``Rerankers``. Does not own: loading (``bootstrap``), the wire (``kit.rpc_contract``)."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.contracts.rerank.v1.api import RerankerCard
from appliance.inference.model_directory import ModelDirectory
from services.rerank.bootstrap import EndingReranker


class RerankerService:
    """Implements ``Rerankers`` over a directory."""

    def __init__(self, rerankers: ModelDirectory[EndingReranker]) -> None:
        self._rerankers = rerankers

    async def rerank(self, caller: str, model: str, query: str, documents: Sequence[str]) -> Sequence[float]:  # noqa: ARG002 - the contract's
        """See the contract."""
        return await (await self._rerankers.get(model)).rerank(query, documents)

    async def models(self, caller: str) -> Sequence[RerankerCard]:  # noqa: ARG002 - the contract's
        """See the contract."""
        return tuple(
            RerankerCard(
                alias=spec.alias,
                engine=spec.engine,
                languages=spec.languages,
                max_context=spec.max_context,
                problem=self._rerankers.problem(spec.alias),
            )
            for spec in self._rerankers.specs.values()
        )
