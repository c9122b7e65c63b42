"""Signing in, who am I, token accounts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from appliance.identity.domain import TokenPair
from services.gateway.caller import Address, Caller
from services.gateway.limits import RateLimits
from services.gateway.ports import Sessions
from services.gateway.schemas import Login, Me, RefreshToken, TokenAnswer, UsageDay, UsageList
from services.gateway.usage import UsageAccounts


def identity_routes(sessions: Sessions, limits: RateLimits, usage: UsageAccounts) -> APIRouter:
    """``/api/auth/*``, ``/api/me``, ``/api/usage``."""
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

    @router.get("/usage", summary="Token accounts of the caller by day, oldest first")
    async def accounts(caller: Caller, days: Annotated[int, Query(ge=1, le=366)] = 30) -> UsageList:
        rows = await usage.read(caller.subject, days)
        return UsageList(
            data=[
                UsageDay(day=row.day, requests=row.requests, prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens) for row in rows
            ]
        )

    return router


def _answer(tokens: TokenPair) -> TokenAnswer:
    return TokenAnswer(access_token=tokens.access_token, refresh_token=tokens.refresh_token, expires_in=tokens.expires_in)
