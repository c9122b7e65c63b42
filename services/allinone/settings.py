"""Settings of the all-in-one process, prefix ``APPLIANCE_BOX_``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class BoxSettings(ServiceSettings):
    """What no single service owns.

    Attributes:
        log_level: of the JSON log.
        otlp_endpoint: where spans go (inside the site): an OpenTelemetry collector, or Langfuse with ``/api/public/otel``; None = nowhere.
        otlp_headers_file: headers of that way, a line each; for Langfuse ``basic: <public key>:<secret key>``.
        otlp_content: questions and answers go along; else only names, counts and codes do.
        least_free_bytes: ``/readyz`` is red below this much free disk.
    """

    model_config = service_config("BOX")

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    otlp_endpoint: str | None = None
    otlp_headers_file: Path | None = None
    otlp_content: bool = False
    least_free_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
