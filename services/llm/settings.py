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
