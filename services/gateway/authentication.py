"""Who is asking, and the record that they were let in or not.

The door of every path below ``/api/`` and ``/v1/`` and of the socket. Every decision goes to the audit log; whoever was let in waits for
the durability of that record only when the answer is about to leave, so the write overlaps with the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Final

from appliance.audit.record import Detail, Outcome
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.gateway.asgi import Scope
from services.gateway.limits import RateLimits
from services.gateway.ports import AuditTrail, Authenticator

ALLOWED: Final[Outcome] = "allow"
DENIED: Final[Outcome] = "deny"
DONE: Final[Outcome] = "ok"
FAILED: Final[Outcome] = "error"
ON_RECORD: Final = "on_record"  # key of an error's context: its refusal has been recorded with more detail
DENYING: Final = frozenset({401, 403, 404, 429})
NOBODY: Final = "anonymous"
_MAX_BEARER_CHARACTERS: Final = 8192
_MAX_ASKED_ON_RECORD: Final = 8
_MAX_READABLE_ON_RECORD: Final = 32
_log = get_logger(__name__)


class Door:
    """Authenticates, and writes decisions down."""

    def __init__(self, authenticator: Authenticator, audit: AuditTrail, limits: RateLimits) -> None:
        self._authenticator = authenticator
        self._audit = audit
        self._limits = limits

    async def principal(self, authorization: bytes | None, address: str, *, action: str, correlation_id: str) -> Principal:
        """The caller.

        Raises:
            ApplianceError: ``unauthenticated``. The denial is on record by then; a flood of them is cut to a few a minute.
        """
        try:
            bearer = bearer_token(authorization)
        except ApplianceError:
            if self._limits.may_record_denial(address):
                await self.record(NOBODY, action, "", DENIED, correlation_id, {"address": address, "reason": "no_credentials"})
            raise
        return await self._authenticator.authenticate(bearer)

    async def again(self, authorization: bytes | None) -> Principal:
        """The same caller as of now; a look-up in memory. Raises ``unauthenticated`` once revoked, disabled or expired."""
        return await self._authenticator.authenticate(bearer_token(authorization))

    async def refuse(self, actor: str, action: str, resource: str, correlation_id: str, error: ApplianceError) -> None:
        """Put a refusal on record that no other record tells about; a flood by one caller is cut to a few a minute."""
        if ON_RECORD not in error.context and self._limits.may_record_denial(actor):
            outcome = DENIED if error.outcome.http in DENYING else FAILED
            await self.record(actor, action, resource, outcome, correlation_id, {"code": error.code})

    def record(self, actor: str, action: str, resource: str, outcome: Outcome, correlation_id: str, detail: Detail) -> asyncio.Future[int]:
        """Queue one record; await the result before anything that depends on it leaves the box."""
        return self._audit.append_nowait(actor=actor, action=action, resource=resource, outcome=outcome, detail=detail, trace_id=correlation_id)


def bearer_token(authorization: bytes | None) -> str:
    """The token of an Authorization header; raises ``unauthenticated`` when there is none."""
    if authorization is None:
        raise ApplianceError("unauthenticated", "no credentials were sent", hint="send 'Authorization: Bearer <access token or sk-… key>'")
    scheme, _, token = authorization.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or len(token) > _MAX_BEARER_CHARACTERS or not token.isascii():
        raise ApplianceError("unauthenticated", "the credentials cannot be read", hint="send 'Authorization: Bearer <access token or sk-… key>'")
    return token.decode("ascii")


def spaces_detail(spaces: Sequence[str] | None, principal: Principal) -> dict[str, str | int | float | bool | list[str] | None]:
    """What a record says about the spaces that were asked for; None = all that the caller may read, which the record then names."""
    if spaces is None:
        names = sorted(islice(principal.spaces, _MAX_READABLE_ON_RECORD))
        return {"spaces": names, "spaces_asked": "all", "spaces_count": len(principal.spaces)}
    return {"spaces": [name[:64] for name in spaces[:_MAX_ASKED_ON_RECORD]], "spaces_count": len(spaces)}


def client_address(scope: Scope) -> str:
    """Address of the peer; the box stands behind no proxy that it would believe."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def forget(pending: asyncio.Future[int]) -> None:
    """Let a record finish by itself after its request has died; a failure is logged."""
    pending.add_done_callback(_swallow)


def _swallow(future: asyncio.Future[int]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _log.error("audit_append_failed", error=str(future.exception()))
