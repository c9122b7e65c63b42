"""Loads rerankers, in this process or as those of the rerank service. The only file that names the adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from appliance.contracts.rerank.v1.api import Rerankers, TextReranker
from appliance.contracts.rerank.v1.client import RerankersClient
from appliance.hub.leases import lease
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.roots import Roots
from appliance.kit import grpc as wire
from appliance.kit.errors import ApplianceError
from appliance.kit.rpc_service import key_bearer
from services.rerank.address import RerankerAddress
from services.rerank.grpc_text_reranker import MOST_CHARACTERS, GrpcTextReranker
from services.rerank.held_reranker import ClosingReranker, HeldReranker
from services.rerank.lexical_reranker import LexicalReranker
from services.rerank.lexical_text_reranker import LexicalTextReranker
from services.rerank.onnx_reranker import OnnxReranker
from services.rerank.pair_pieces import CHARACTERS_PER_TOKEN
from services.rerank.sentence_transformers_reranker import SentenceTransformersReranker
from services.rerank.settings import RerankSettings


class EndingReranker(TextReranker, Protocol):
    """A text reranker that a directory keeps."""

    def retire(self) -> None:
        """Another one has taken its place, or none."""
        ...

    async def end(self) -> None:
        """The process stops."""
        ...


def load_reranker(spec: ModelSpec, hub: Roots, trust: ModelTrust, settings: RerankSettings) -> EndingReranker:
    """Check signature and every digest, load, and hold the snapshot (blocking: call it in a thread).

    Raises:
        ApplianceError: ``snapshot_missing``, ``snapshot_unsigned``, ``snapshot_altered``, ``unavailable`` (no torch).
    """
    if spec.engine == "lexical":
        return LexicalTextReranker(LexicalReranker(), None)
    snapshot = open_signed(hub, spec.path, spec.digest, trust)
    held = lease(snapshot)
    try:
        reranker: ClosingReranker
        if spec.engine == "sentence-transformers":
            reranker = SentenceTransformersReranker.load(spec, snapshot, settings)
        else:
            reranker = OnnxReranker.load(spec, snapshot, settings)
    except BaseException:
        held.close()
        raise
    return HeldReranker(reranker, held.close)


def served_specs(catalog: ModelCatalog, settings: RerankSettings) -> Sequence[ModelSpec]:
    """The models that the service gives. Raises ``model_not_found``, also when there is none."""
    specs = [catalog.get("rerank", alias) for alias in dict.fromkeys(settings.serve)] if settings.serve else catalog.of_kind("rerank")
    if not specs:
        raise ApplianceError("model_not_found", "models.toml names no rerank model", hint='[rerank.default] with engine = "lexical" is built in')
    return specs


@asynccontextmanager
async def open_reranker_service(address: RerankerAddress) -> AsyncIterator[Rerankers]:
    """The service at ``address``; connects when it is first asked. Raises ``settings_invalid``."""
    channel = wire.open_channel(address.host, address.port, address.tls)
    try:
        yield RerankersClient(channel, key_bearer(address), address.call_seconds)
    finally:
        await channel.close()


def remote_reranker(spec: ModelSpec, service: Rerankers) -> EndingReranker:
    """In place of :func:`load_reranker` where the service runs elsewhere."""
    most = spec.max_context * CHARACTERS_PER_TOKEN if spec.max_context else MOST_CHARACTERS
    return HeldReranker(GrpcTextReranker(service, spec.alias, most_characters=most), lambda: None)
