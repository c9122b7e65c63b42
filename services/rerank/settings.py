"""Settings of reranking, prefix ``APPLIANCE_RERANK_``: how much may be asked at once. What the models are stands in models.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class RerankSettings(ServiceSettings):
    """A document costs as many tokens as it has together with the query, at most the model's context.

    Attributes:
        query_threads: runs of calls with few documents side by side; bulk_threads: of calls with many (0 = as many as there are cores).
        query_documents: a call with more is bulk work and gives way.
        max_documents: of one call.
        max_tokens: of one call, all pairs together; at 0.12 ms a token and core a million are two minutes of one core.
        serve: aliases that the service gives; empty = every rerank model of models.toml. load: when.
        device: of sentence-transformers: cuda, cuda:1, cpu; empty = cuda if there is one.
    """

    model_config = service_config("RERANK")

    query_threads: int = Field(default=2, ge=1, le=64)
    bulk_threads: int = Field(default=0, ge=0, le=256)
    query_documents: int = Field(default=64, ge=1, le=1000)
    max_documents: int = Field(default=1000, ge=1, le=100_000)
    max_tokens: int = Field(default=262_144, ge=512)
    max_waiting_queries: int = Field(default=256, ge=1, description="runs that wait; more are refused with `overloaded`")
    max_waiting_bulk: int = Field(default=4096, ge=1)
    serve: tuple[str, ...] = Field(default=(), max_length=64)
    load: Literal["start", "first_use"] = "first_use"
    device: str = Field(default="", max_length=32)
