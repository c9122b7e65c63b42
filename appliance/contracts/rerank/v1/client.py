"""The rerank service over gRPC: ``Rerankers``, each method an rpc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from appliance.contracts.rerank.v1 import rerank_pb2
from appliance.contracts.rerank.v1.api import RerankerCard, Rerankers
from appliance.kit.rpc_contract import CALL_SECONDS, Authenticate, BearerOf, Remote, handler

SERVICE: Final[Any] = rerank_pb2.DESCRIPTOR.services_by_name["Rerankers"]


def rerankers_handler(rerankers: Rerankers, authenticate: Authenticate) -> Any:
    """Serves ``rerankers``: for ``serving_rpc``."""
    return handler(SERVICE, Rerankers, rerankers, authenticate)


class RerankersClient:
    """Implements ``Rerankers`` over a channel (``appliance.kit.grpc.open_channel``)."""

    def __init__(self, channel: Any, bearer_of: BearerOf, call_seconds: float = CALL_SECONDS) -> None:
        self._remote = Remote(channel, SERVICE, Rerankers, bearer_of, call_seconds)

    async def rerank(self, caller: str, model: str, query: str, documents: Sequence[str]) -> Sequence[float]:
        """See the contract."""
        return cast("Sequence[float]", await self._remote.call("rerank", caller, model=model, query=query, documents=documents))

    async def models(self, caller: str) -> Sequence[RerankerCard]:
        """See the contract."""
        return cast("Sequence[RerankerCard]", await self._remote.call("models", caller))
