"""Settings of the chat models, prefix ``APPLIANCE_LLM_``: deadlines and limits towards an endpoint. Which model answers is in models.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class LlmSettings(ServiceSettings):
    """Deadlines are seconds of silence; sizes are bytes."""

    model_config = service_config("LLM")

    connect_timeout_seconds: float = Field(default=5.0, gt=0)
    first_byte_timeout_seconds: float = Field(default=60.0, gt=0)
    between_bytes_timeout_seconds: float = Field(default=30.0, gt=0)
    total_timeout_seconds: float = Field(default=600.0, gt=0)
    health_timeout_seconds: float = Field(default=3.0, gt=0)
    max_line_bytes: int = Field(default=1024 * 1024, gt=0)
    max_answer_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    max_connections: int = Field(default=2048, gt=0)
    # a model's replicas: services/llm/pool
    max_parallel: int = Field(default=2048, gt=0)  # requests of one model at once, unless models.toml says otherwise
    max_waiting: int = Field(default=256, ge=0)
    max_wait_seconds: float = Field(default=2.0, gt=0)
    attempts: int = Field(default=3, ge=1, le=10)
    backoff_seconds: float = Field(default=0.1, gt=0)
    longest_backoff_seconds: float = Field(default=5.0, gt=0)
    retry_share: float = Field(default=0.1, ge=0, le=1)
    retry_reserve: int = Field(default=10, ge=0)
    breaker_failures: int = Field(default=5, ge=1)
    breaker_error_share: float = Field(default=0.5, gt=0, le=1)
    breaker_least_results: int = Field(default=20, ge=1)
    breaker_window_seconds: float = Field(default=30.0, gt=0)
    breaker_open_seconds: float = Field(default=5.0, gt=0)
    breaker_longest_open_seconds: float = Field(default=60.0, gt=0)
    health_interval_seconds: float = Field(default=10.0, gt=0)


@dataclass(frozen=True, slots=True)
class OpenAiEndpoint:
    """Where a model is served.

    Attributes:
        url: base up to and including the version, ``http://gpu1:8000/v1``.
        model: the name that the endpoint knows.
        api_key_file: file with the key on its first line; None = no Authorization header.
    """

    url: str
    model: str
    api_key_file: Path | None = None
