"""Builds the encoder that the settings name. The only file that names the adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from appliance.hub.model_spec import ModelCatalog
from appliance.kit.errors import ApplianceError
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings
from services.embed.unavailable_encoder import UnavailableEncoder


@asynccontextmanager
async def open_encoder(catalog: ModelCatalog, hub: Path, settings: EmbedSettings) -> AsyncIterator[OnnxEncoder | UnavailableEncoder]:
    """The encoder, or one that says why there is none. Loads in a thread.

    Raises:
        ApplianceError: ``model_not_found`` when models.toml has no such alias: that is a mistake in the settings, not a lost file.
    """
    spec = catalog.get("embed", settings.model)
    encoder: OnnxEncoder | UnavailableEncoder
    try:
        encoder = await asyncio.to_thread(OnnxEncoder.load, spec, hub, settings)
    except ApplianceError as problem:
        encoder = UnavailableEncoder(spec, problem)
    try:
        yield encoder
    finally:
        await asyncio.to_thread(encoder.close)
