"""Settings of tools and agents."""

from __future__ import annotations

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config


class AgentSettings(ServiceSettings):
    """Environment ``APPLIANCE_AGENTS_*``.

    Attributes:
        speculate: begin read-only calls before the model has asked for all of them. Off: a wrong guess costs work and an audit record.
        calls_per_turn: calls that one ``run`` takes; the rest are refused.
        at_once_per_turn: read-only calls of one turn that run at the same time.
        at_once: calls of all turns that run at the same time.
        speculation_seconds: how long a foreseen result may wait for its call.
        look_seconds: time between two looks at ``agents.toml``.
    """

    model_config = service_config("AGENTS")

    speculate: bool = False
    calls_per_turn: int = Field(default=32, ge=1, le=256)
    at_once_per_turn: int = Field(default=8, ge=1, le=64)
    at_once: int = Field(default=64, ge=1, le=1024)
    speculation_seconds: float = Field(default=60.0, gt=0, le=600)
    look_seconds: float = Field(default=0.5, ge=0.05, le=60)
