"""gRPC without a domain word: errors on the wire, deadlines, TLS, servers and channels. What is said is ``rpc_contract`` and the contracts.

Errors keep their code and hint over the wire: the status comes from the table of ``errors``, the rest travels in the trailing metadata. A deadline that
a caller set holds for everything that is called on its behalf (:data:`deadline`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from appliance.kit.egress import GUARD
from appliance.kit.errors import OUTCOMES, ApplianceError

CODE: Final = "appliance-code"
HINT: Final = "appliance-hint-bin"
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
_MAX_MESSAGE_CHARACTERS: Final = 1000
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
)
_SERVER_OPTIONS: Final = (*_OPTIONS, ("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 1000))
_BY_STATUS: Final = {
    "INVALID_ARGUMENT": "invalid_request",
    "UNAUTHENTICATED": "unauthenticated",
    "PERMISSION_DENIED": "forbidden",
    "NOT_FOUND": "not_found",
    "ALREADY_EXISTS": "conflict",
    "RESOURCE_EXHAUSTED": "overloaded",
    "DEADLINE_EXCEEDED": "upstream_timeout",
    "CANCELLED": "cancelled",
    "UNAVAILABLE": "unavailable",
}

deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""``time.monotonic()`` at which the caller of the current request stops waiting; None when it did not say."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for mutual TLS: own certificate chain and key, and the authority whose certificates are accepted from the other side."""

    certificate: Path
    key: Path
    authority: Path


async def abort(context: Any, error: ApplianceError) -> NoReturn:
    """End the call with ``error``; its context stays here."""
    metadata = ((CODE, error.code), (HINT, error.hint[:_MAX_MESSAGE_CHARACTERS].encode()))
    await context.abort(grpc.StatusCode[error.outcome.grpc], error.message[:_MAX_MESSAGE_CHARACTERS], metadata)
    raise AssertionError  # abort raises


def error_of(failure: Any) -> ApplianceError:
    """What an ``AioRpcError`` means: the error that the other side raised, or what became of the connection."""
    trailing = {str(name): value for name, value in failure.trailing_metadata() or ()}
    code, hint = trailing.get(CODE), trailing.get(HINT, b"")
    if isinstance(code, str) and code in OUTCOMES:
        text = hint.decode(errors="replace") if isinstance(hint, bytes) else ""
        return ApplianceError(code, failure.details() or code, hint=text)
    status = failure.code().name
    code = _BY_STATUS.get(status, "internal")
    return ApplianceError(
        code, f"gRPC {status}: {failure.details() or 'no details'}"[:_MAX_MESSAGE_CHARACTERS], hint="see whether the service runs, then try again"
    )


def bearer_of(context: Any) -> str:
    """The caller's bearer; raises ``unauthenticated`` when there is none."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return token.strip()
    raise ApplianceError("unauthenticated", "no credentials were sent", hint="send the metadata 'authorization: Bearer <access token or sk-… key>'")


def seconds_left(most_seconds: float) -> float:
    """The time for a call: ``most_seconds``, or what the current request's caller has left when that is less. Raises ``upstream_timeout`` at 0."""
    until = deadline.get()
    left = most_seconds if until is None else min(most_seconds, until - time.monotonic())
    if left <= 0:
        raise ApplianceError("upstream_timeout", "the caller's deadline is over", hint="allow more time")
    return left


def new_server(maximum_concurrent_rpcs: int = 10_000) -> Any:
    """A server without services and addresses; more calls at once are refused with RESOURCE_EXHAUSTED."""
    return grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=maximum_concurrent_rpcs)


def listen(server: Any, host: str, port: int, tls: TlsFiles | None) -> int:
    """Bind ``server``; returns the port (a free one for 0).

    Raises:
        ApplianceError: ``settings_invalid``: no TLS beyond loopback, or files that cannot be read; ``unavailable``: the address is taken.
    """
    try:
        if tls is None:
            _require_loopback(host)
            return int(server.add_insecure_port(_target(host, port)))
        pairs = [(_read(tls.key), _read(tls.certificate))]
        credentials = grpc.ssl_server_credentials(pairs, root_certificates=_read(tls.authority), require_client_auth=True)
        return int(server.add_secure_port(_target(host, port), credentials))
    except RuntimeError as error:
        raise ApplianceError("unavailable", f"cannot listen on {host}:{port}: {error}", hint="is the port taken? ss -ltn") from error


def open_channel(host: str, port: int, tls: TlsFiles | None) -> Any:
    """A channel to keep and share; close it with ``await channel.close()``. Raises ``settings_invalid`` as :func:`listen`."""
    GUARD.check_address("grpc.channel", (host, port))
    if tls is None:
        _require_loopback(host)
        return grpc.aio.insecure_channel(_target(host, port), options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(_read(tls.authority), _read(tls.key), _read(tls.certificate))
    return grpc.aio.secure_channel(_target(host, port), credentials, options=_OPTIONS)


async def stop(server: Any, grace_seconds: float) -> None:
    """Take no more calls, let those in flight end for ``grace_seconds``, then cancel them."""
    await asyncio.shield(server.stop(grace_seconds))


def _require_loopback(host: str) -> None:
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ApplianceError(
            "settings_invalid", f"gRPC without TLS is for loopback only, not for {host}", hint="set the certificate, key and authority files"
        )


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ApplianceError("settings_invalid", f"cannot read {path}: {error.strerror}", hint="correct the path, or the file's rights") from error
