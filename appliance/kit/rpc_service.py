"""A service of its own for other services of the site: its address and credentials, serving until a signal, the standard health check.

Owns: who may call (a certificate of the site's authority, or the service key, or both) and how long a stop may take. Does not own: what is served
(``rpc_contract``). People and agents never call such a service; their rights were checked by the one that asks on their behalf.
"""

from __future__ import annotations

import asyncio
import hmac
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from pydantic import Field

from appliance.kit import grpc as wire
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.rpc_contract import Authenticate, BearerOf
from appliance.kit.settings import ServiceSettings

_MAX_KEY_BYTES: Final = 4096
_SHORTEST_KEY: Final = 16
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # grpc.health.v1.HealthCheckResponse, field 1: status
_log = get_logger(__name__)


class RpcAddress(ServiceSettings):
    """Where a service listens, and where its callers find it. Subclasses give the prefix.

    Attributes:
        host: beyond loopback the three files are needed.
        port: a service takes a free one for 0; to a caller 0 means that the service is not used.
        certificate: PEM chain of this side.
        key: its private key.
        authority: PEM of the authority that signs the other side's certificate (mutual TLS).
        key_file: file with a key that callers present, on its first line; without TLS it is needed.
        call_seconds: longest time of one call.
        grace_seconds: how long calls in flight may go on when the service stops.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    key_file: Path | None = None
    call_seconds: float = Field(default=30.0, gt=0, le=3600)
    grace_seconds: float = Field(default=5.0, ge=0, le=300)
    max_calls_at_once: int = Field(default=1024, ge=1, le=1_000_000)

    @property
    def tls(self) -> wire.TlsFiles | None:
        """The files; None when none is set. Raises ``settings_invalid`` when only some are."""
        if self.certificate and self.key and self.authority:
            return wire.TlsFiles(self.certificate, self.key, self.authority)
        if self.certificate or self.key or self.authority:
            prefix = self.model_config.get("env_prefix", "")
            hint = f"set {prefix}CERTIFICATE, {prefix}KEY and {prefix}AUTHORITY"
            raise ApplianceError("settings_invalid", "mutual TLS takes a certificate, a key and an authority", hint=hint)
        return None

    def service_key(self) -> str:
        """The key; empty without a file. Raises ``settings_invalid``: unreadable, too short, or neither a key nor TLS."""
        prefix = self.model_config.get("env_prefix", "")
        if self.key_file is None:
            if self.tls is None:
                hint = f"set {prefix}KEY_FILE to a file with a long random line, the same on both sides, or give mutual TLS"
                raise ApplianceError(
                    "settings_invalid", "a service without TLS needs a key, or every program of this machine could call it", hint=hint
                )
            return ""
        try:
            with self.key_file.open("rb") as file:
                line = file.read(_MAX_KEY_BYTES).decode("ascii").splitlines()[0].strip()
        except (OSError, UnicodeDecodeError, IndexError) as error:
            raise ApplianceError("settings_invalid", f"{prefix}KEY_FILE: {self.key_file} holds no key", hint="write one on its first line") from error
        if len(line) < _SHORTEST_KEY:
            raise ApplianceError("settings_invalid", f"{prefix}KEY_FILE: the key is too short", hint=f"take {_SHORTEST_KEY} characters or more")
        return line


def key_check(address: RpcAddress) -> Authenticate:
    """Bearer → name of the caller. With mutual TLS and no key whoever holds a certificate is let in."""
    expected = address.service_key().encode()

    async def authenticate(bearer: str) -> str:
        if expected and not hmac.compare_digest(bearer.encode(), expected):
            raise ApplianceError("unauthenticated", "the service key is not the one of this service", hint="both sides read the same key file")
        return "service"

    return authenticate


def key_bearer(address: RpcAddress) -> BearerOf:
    """The bearer of every call to a service at ``address``."""
    bearer = address.service_key() or "certificate"
    return lambda _caller: bearer


@asynccontextmanager
async def serving_rpc(handlers: Sequence[Any], address: RpcAddress, is_healthy: Callable[[], bool]) -> AsyncIterator[int]:
    """Serve while entered; the port. Raises ``settings_invalid``, ``unavailable`` (port taken)."""
    server: Any = wire.new_server(address.max_calls_at_once)
    server.add_generic_rpc_handlers((*handlers, _health(is_healthy)))
    port = wire.listen(server, address.host, address.port, address.tls)
    await server.start()
    _log.info("grpc_listening", host=address.host, port=port, tls=address.tls is not None)
    try:
        yield port
    finally:
        await wire.stop(server, address.grace_seconds)


async def until_told_to_stop() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _health(is_healthy: Callable[[], bool]) -> Any:
    """``grpc.health.v1.Health/Check`` for supervisors: the whole service, whatever name is asked for. It tells nothing else and takes no key."""

    async def check(_request: bytes, _context: Any) -> bytes:
        return _SERVING if is_healthy() else _NOT_SERVING

    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)})
