"""The embedding service over gRPC: ``Embedder``, each method an rpc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from appliance.contracts.embed.v1 import embed_pb2
from appliance.contracts.embed.v1.api import Embedder, EncoderCard, PackedVectors
from appliance.kit.rpc_contract import CALL_SECONDS, Authenticate, BearerOf, Remote, handler

SERVICE: Final[Any] = embed_pb2.DESCRIPTOR.services_by_name["Embedder"]


def embedder_handler(embedder: Embedder, authenticate: Authenticate) -> Any:
    """Serves ``embedder``: for ``serving_rpc``."""
    return handler(SERVICE, Embedder, embedder, authenticate)


class EmbedderClient:
    """Implements ``Embedder`` over a channel (``appliance.kit.grpc.open_channel``)."""

    def __init__(self, channel: Any, bearer_of: BearerOf, call_seconds: float = CALL_SECONDS) -> None:
        self._remote = Remote(channel, SERVICE, Embedder, bearer_of, call_seconds)

    async def embed(self, caller: str, model: str, texts: Sequence[str], background: bool = False) -> PackedVectors:
        """See the contract."""
        return cast("PackedVectors", await self._remote.call("embed", caller, model=model, texts=texts, background=background))

    async def tokenizer(self, caller: str, model: str) -> msgspec.Raw:
        """See the contract."""
        return cast("msgspec.Raw", await self._remote.call("tokenizer", caller, model=model))

    async def models(self, caller: str) -> Sequence[EncoderCard]:
        """See the contract."""
        return cast("Sequence[EncoderCard]", await self._remote.call("models", caller))
