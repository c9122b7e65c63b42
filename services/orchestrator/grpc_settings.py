"""Where the orchestrator listens for gRPC, and with which certificates."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from appliance.kit.errors import ApplianceError
from appliance.kit.grpc import TlsFiles
from appliance.kit.settings import ServiceSettings, service_config


class GrpcSettings(ServiceSettings):
    """``APPLIANCE_GRPC_…``.

    Attributes:
        host: address to listen on; beyond loopback the three files are needed.
        port: 0 takes a free one.
        certificate: PEM chain of this service.
        key: its private key.
        authority: PEM of the authority that signs the callers' certificates; a caller without one is turned away (mutual TLS).
        grace_seconds: how long calls in flight may go on when the service stops.
    """

    model_config = service_config("GRPC")

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    grace_seconds: float = Field(default=5.0, ge=0, le=300)
    max_calls_at_once: int = Field(default=10_000, ge=1, le=1_000_000)

    @property
    def tls(self) -> TlsFiles | None:
        """The files; None when none is set. Raises ``settings_invalid`` when only some are."""
        if self.certificate and self.key and self.authority:
            return TlsFiles(self.certificate, self.key, self.authority)
        if self.certificate or self.key or self.authority:
            hint = "set APPLIANCE_GRPC_CERTIFICATE, APPLIANCE_GRPC_KEY and APPLIANCE_GRPC_AUTHORITY"
            raise ApplianceError("settings_invalid", "mutual TLS takes a certificate, a key and an authority", hint=hint)
        return None
