"""Loads encoders, in this process or as those of the embedding service. The only file that names the adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from appliance.contracts.embed.v1.api import Embedder
from appliance.contracts.embed.v1.client import EmbedderClient
from appliance.hub.leases import lease
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.roots import Roots
from appliance.hub.snapshots import Snapshot
from appliance.inference.model_directory import ModelDirectory
from appliance.kit import grpc as wire
from appliance.kit.errors import ApplianceError
from appliance.kit.rpc_service import key_bearer
from services.embed.address import EmbedderAddress
from services.embed.embedder import EncoderService
from services.embed.grpc_encoder import GrpcEncoder
from services.embed.held_encoder import ClosingEncoder, HeldEncoder
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.sentence_transformers_encoder import SentenceTransformersEncoder
from services.embed.settings import EmbedSettings
from services.embed.unavailable_encoder import UnavailableEncoder


def load_encoder(spec: ModelSpec, hub: Roots, settings: EmbedSettings, trust: ModelTrust) -> HeldEncoder:
    """Check signature and every digest, load, and hold the snapshot (blocking, about 0.35 s: call it in a thread).

    The lease comes first: what is loaded cannot be collected while it is read, nor while it is used.

    Raises:
        ApplianceError: ``snapshot_missing``, ``snapshot_unsigned``, ``snapshot_altered``.
    """
    snapshot = open_signed(hub, spec.path, spec.digest, trust)
    held = lease(snapshot)
    try:
        encoder = _engine(spec, snapshot, hub, settings)
    except BaseException:
        held.close()
        raise
    return HeldEncoder(encoder, vector_identity(spec), held.close)


def load_or_explain(spec: ModelSpec, load: Callable[[ModelSpec], HeldEncoder]) -> HeldEncoder:
    """``load(spec)`` for the start of the box: a model that cannot be loaded becomes an encoder that says why."""
    try:
        return load(spec)
    except ApplianceError as problem:
        return HeldEncoder(UnavailableEncoder(spec, problem), vector_identity(spec), _nothing, problem)


def vector_identity(spec: ModelSpec) -> str:
    """What decides whether two vectors may be compared: the weights, and where texts are cut."""
    return f"sha256:{spec.digest} max_context={spec.max_context}"


def served_specs(catalog: ModelCatalog, settings: EmbedSettings) -> Sequence[ModelSpec]:
    """The models that may be named: ``APPLIANCE_EMBED_MODEL``, then those of ``APPLIANCE_EMBED_SERVE``. Raises ``model_not_found``."""
    return [catalog.get("embed", alias) for alias in dict.fromkeys((settings.model, *settings.serve))]


def open_encoders(specs: Sequence[ModelSpec], load: Callable[[ModelSpec], HeldEncoder]) -> tuple[ModelDirectory[HeldEncoder], EncoderService]:
    """Encoders side by side, and the service over them."""
    encoders = ModelDirectory(specs, load, "embedding model")
    return encoders, EncoderService(encoders, vector_identity)


@asynccontextmanager
async def open_embedder(address: EmbedderAddress) -> AsyncIterator[Embedder]:
    """The service at ``address``; connects when it is first asked. Raises ``settings_invalid``."""
    channel = wire.open_channel(address.host, address.port, address.tls)
    try:
        yield EmbedderClient(channel, key_bearer(address), address.call_seconds)
    finally:
        await channel.close()


def remote_encoder(spec: ModelSpec, embedder: Embedder) -> HeldEncoder:
    """In place of :func:`load_encoder` where the service runs elsewhere."""
    return HeldEncoder(GrpcEncoder(embedder, spec, vector_identity(spec)), vector_identity(spec), _nothing)


def _engine(spec: ModelSpec, snapshot: Snapshot, hub: Roots, settings: EmbedSettings) -> ClosingEncoder:
    if spec.engine == "sentence-transformers":
        return SentenceTransformersEncoder.load(spec, snapshot, settings)
    return OnnxEncoder.load(spec, hub, settings)


def _nothing() -> None:
    """There is no snapshot to give back."""
