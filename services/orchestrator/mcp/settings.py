"""Limits of the MCP server."""

from __future__ import annotations

from pydantic import Field

from appliance.kit.settings import ServiceSettings, service_config

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class McpSettings(ServiceSettings):
    """``APPLIANCE_MCP_…``.

    Attributes:
        allowed_hosts: names that a Host or an Origin header may carry, any port (protection against DNS rebinding). Name the box here when agents
            reach it from other machines; ``*`` allows every name.
        rate_factor: share of ``Principal.requests_per_minute`` that MCP calls may use.
        max_calls_at_once: calls of one principal in flight, waiting approvals included.
        approval_wait_seconds: how long ``request_approval`` waits when the call does not say; below the 60 s after which many clients give up.
        max_wait_seconds: the longest wait of ``request_approval`` and ``claim_task``.
        progress_interval_seconds: time between two progress notifications of a waiting call.
        claims_remembered: claims whose fencing tokens are kept for calls that do not carry one.
    """

    model_config = service_config("MCP")

    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    rate_factor: float = Field(default=1.0, gt=0, le=10)
    max_calls_at_once: int = Field(default=64, ge=1, le=10_000)
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    approval_wait_seconds: float = Field(default=50.0, ge=0, le=3600)
    max_wait_seconds: float = Field(default=600.0, ge=0, le=3600)
    progress_interval_seconds: float = Field(default=5.0, gt=0, le=60)
    claims_remembered: int = Field(default=10_000, ge=1, le=1_000_000)
    denials_recorded_per_minute: int = Field(default=60, ge=1, le=10_000)
