"""Settings of embedding, prefix ``APPLIANCE_EMBED_``: which model, how many threads, how much may wait. What the model is stands in models.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class EmbedSettings(ServiceSettings):
    """Threads are threads of computation: each runs one batch on one core."""

    model_config = service_config("EMBED")

    model: str = Field(default="minilm", min_length=1)
    query_threads: int = Field(default=2, ge=1, le=64)
    bulk_threads: int = Field(default=0, ge=0, le=256, description="0 = as many as there are cores")
    query_cache_entries: int = Field(default=4096, ge=0, le=1_000_000, description="1.6 kB each, and the text")
    max_texts_per_call: int = Field(default=2048, ge=1)
    max_waiting_queries: int = Field(default=256, ge=1, description="more are refused with `overloaded`")
    max_waiting_bulk: int = Field(default=4096, ge=1, description="batches of bulk work that wait; more are refused with `overloaded`")
    batch_wait_ms: float = Field(default=2.0, ge=0, le=100, description="how long a busy service waits for a batch to fill; an idle one never does")
    serve: tuple[str, ...] = Field(default=(), max_length=64, description="aliases that may be named, beside `model`; JSON list")
    load: Literal["start", "first_use"] = Field(default="first_use", description="when the models of `serve` are loaded")
    device: str = Field(default="", max_length=32, description="of sentence-transformers: cuda, cuda:1, cpu; empty = cuda if there is one")
