"""Settings of the service itself, prefix ``APPLIANCE_VALIDATOR_``; what callers also need is in ``address``."""

from __future__ import annotations

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class ValidatorSettings(ServiceSettings):
    """Attributes.

    modules: Python modules of this site that register validators with guardrails-ai; empty = only ours, and guardrails-ai is not imported.
    threads: calls worked on side by side.
    """

    model_config = service_config("VALIDATOR")

    modules: tuple[str, ...] = Field(default=(), max_length=64)
    threads: int = Field(default=4, ge=1, le=64)
