"""Loads the encoder that the settings name. The only file that names the adapters."""

from __future__ import annotations

from collections.abc import Callable

from appliance.hub.leases import lease
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.roots import Roots
from appliance.kit.errors import ApplianceError
from services.embed.held_encoder import HeldEncoder
from services.embed.onnx_encoder import OnnxEncoder
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
        encoder = OnnxEncoder.load(spec, hub, settings)
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


def _nothing() -> None:
    """There is no snapshot to give back."""
