"""Signing in, who am I."""

from __future__ import annotations

from fastapi import APIRouter

from appliance.identity.domain import TokenPair
from services.gateway.caller import Address, Caller
from services.gateway.limits import RateLimits
from services.gateway.ports import Sessions
from services.gateway.schemas import Login, Me, RefreshToken, TokenAnswer


def identity_routes(sessions: Sessions, limits: RateLimits) -> APIRouter:
    """``/api/auth/*``, ``/api/me``."""
    router = APIRouter(prefix="/api", tags=["identity"])

    @router.post("/auth/login", summary="Sign in")
    async def login(body: Login, address: Address) -> TokenAnswer:
        limits.take_login(address)
        return _answer(await sessions.login(body.username, body.password.get_secret_value(), address=address))

    @router.post("/auth/refresh", summary="Exchange a refresh token; the old one is spent")
    async def refresh(body: RefreshToken, address: Address) -> TokenAnswer:
        limits.take_login(address)
        return _answer(await sessions.refresh(body.refresh_token))

    @router.post("/auth/logout", status_code=204, summary="Spend a refresh token")
    async def logout(body: RefreshToken, address: Address) -> None:
        limits.take_login(address)
        await sessions.logout(body.refresh_token)

    @router.get("/me", summary="The caller")
    async def me(caller: Caller) -> Me:
        spaces = {name: role.name.lower() for name, role in sorted(caller.spaces.items())}
        return Me(subject=caller.subject, kind=caller.kind, roles=sorted(caller.roles), spaces=spaces)

    return router


def _answer(tokens: TokenPair) -> TokenAnswer:
    return TokenAnswer(access_token=tokens.access_token, refresh_token=tokens.refresh_token, expires_in=tokens.expires_in)
