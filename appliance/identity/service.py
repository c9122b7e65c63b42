"""Who is asking: bearers to principals, log in, refresh, log out. Managing users, spaces and keys is ``directory``.

The hot path is a dictionary look-up by the SHA-256 of the bearer. What makes it safe: every change of users, keys, spaces or members
empties the cache of this process at once and adds one to a generation row, which each process reads every ``notice_seconds``; beyond
``stale_seconds`` nobody is let in without reading it. Expired credentials leave by the clock.

Refresh tokens are used once. Each use gives a new one of the same *family* (one login). A second use means that two parties hold it:
the whole family ends, its access tokens too (their ``sid`` is the family).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, NoReturn

from appliance.audit.ports import Auditor
from appliance.audit.record import Outcome
from appliance.identity import roles
from appliance.identity.directory import Directory
from appliance.identity.domain import TokenPair, User
from appliance.identity.keys import REFRESH_PREFIX, ApiKey, is_key, new_id, new_secret, secret_hash
from appliance.identity.lockout import Lockout
from appliance.identity.passwords import Passwords
from appliance.identity.principal import ADMIN, MEMBER, Principal, SpaceRole
from appliance.identity.principal_cache import CachedPrincipal, PrincipalCache
from appliance.identity.settings import IdentitySettings
from appliance.identity.store_sqlalchemy import Rows, SqlStore
from appliance.identity.tokens import AccessClaims, TokenIssuer, bad_token
from appliance.kit.errors import ApplianceError

ADMIN_KEY_ROLE: Final = "admin"


class Identity:
    """The identity service of one process.

    Args:
        store: users, spaces, members, keys, refresh tokens.
        issuer: makes and reads access tokens.
        passwords: hashes them.
        audit: every denial and every change goes there before it is answered.
        settings: limits.
        now: seconds since the epoch.
        monotonic: seconds for limits and delays.
    """

    def __init__(
        self,
        store: SqlStore,
        issuer: TokenIssuer,
        passwords: Passwords,
        audit: Auditor,
        settings: IdentitySettings,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._passwords = passwords
        self._audit = audit
        self._settings = settings
        self._now = now
        self._monotonic = monotonic
        self._cache = PrincipalCache(settings.cache_entries)
        self._lockout = Lockout(settings)
        self._denials = _Denials(settings.denials_per_second)
        self._looking = asyncio.Lock()
        self._look_at = self._stale_at = -math.inf
        self.directory = Directory(store, passwords, audit, self._cache, now=now)

    async def authenticate(self, bearer: str) -> Principal:
        """The principal behind an access token or an API key (without ``Bearer``).

        Raises:
            ApplianceError: ``unauthenticated`` for anything unknown, expired, revoked or disabled; ``unavailable`` when the
                database does not answer and what is known is too old to trust.
        """
        if self._monotonic() >= self._look_at:
            await self._look()
        now = self._now()
        digest = hashlib.sha256(bearer.encode("utf-8", "surrogatepass")).digest()
        return self._cache.get(digest, now) or await self._resolve(bearer, digest, now)

    async def login(self, username: str, password: str, *, address: str | None = None) -> TokenPair:
        """Begin a session; ``address`` of the client keeps a stranger's failures from slowing down the owner of the name.

        Raises:
            ApplianceError: ``unauthenticated`` (never says which of the two was wrong), ``rate_limited`` after failures,
                ``overloaded`` when too many log in at once.
        """
        name = username.strip().lower()[:64]
        try:
            self._lockout.begin(name, self._monotonic(), address)
        except ApplianceError:
            await self._deny("session.login", "anonymous", "too_many_failures")
            raise
        async with self._store.view() as rows:
            encoded = await rows.password_hash(name)
        is_right = await self._passwords.verify(encoded, password)
        if encoded is None or not is_right:
            await self._login_denied(name if encoded else "unknown", "wrong_credentials")
        user = await self._fresh_user(name, encoded)
        if user is None:
            await self._login_denied(name, "disabled")
        self._lockout.succeeded(name, address)
        if self._passwords.is_outdated(encoded):
            with suppress(ApplianceError):
                await self.directory.rehash(name, password)
        return await self._begin_session(user)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Continue a session: the old refresh token is spent, a new pair comes back.

        Raises:
            ApplianceError: ``unauthenticated``; when the token had been used before, the whole session has ended.
        """
        now = int(self._now())
        hashed = secret_hash(refresh_token)
        async with self._store.view() as rows:
            row = await rows.refresh_token(hashed)
        if row is None or row.revoked_at is not None or row.expires_at <= now:
            await self._deny("session.refresh", f"user:{row.user}" if row is not None else "anonymous", "not_valid")
            raise bad_token()
        successor = new_secret(REFRESH_PREFIX)
        user: User | None = None
        async with self._store.change(alters_principals=False) as rows:
            row = await rows.refresh_token(hashed)  # again, now nobody can change it
            is_alive = row is not None and row.revoked_at is None
            if row is not None and is_alive and await rows.spend_refresh_token(hashed, now):
                user = await rows.user(row.user)
                if user is not None and not user.disabled:
                    expires_at = now + self._settings.refresh_seconds
                    await rows.add_refresh_token(secret_hash(successor), row.family, user.name, expires_at)
                    await self._record(f"user:{user.name}", "session.refresh", f"session:{row.family}", "ok")
        if row is None or user is None or user.disabled:
            if row is not None:
                await self._end_family(row.family, row.user, "reused")
            raise bad_token()
        access = self._issuer.issue(user.name, _roles(user), row.family)
        return TokenPair(access, successor, self._issuer.lifetime_seconds)

    async def logout(self, refresh_token: str) -> None:
        """End the session of a refresh token: it, its successors and its access tokens. Unknown tokens are no error."""
        async with self._store.view() as rows:
            row = await rows.refresh_token(secret_hash(refresh_token))
        if row is None or row.revoked_at is not None:
            return
        async with self._store.change() as rows:
            await rows.revoke_sessions(int(self._now()), family=row.family)
            await self._record(f"user:{row.user}", "session.logout", f"session:{row.family}", "ok")
        self._cache.forget()

    def jwks(self) -> dict[str, list[dict[str, object]]]:
        """The document served at ``/.well-known/jwks.json``."""
        return self._issuer.jwks()

    async def _look(self) -> None:
        """Notice changes made by other processes. One look at a time; others go on with what is known while it is fresh."""
        if self._looking.locked() and self._monotonic() < self._stale_at:
            return
        async with self._looking:
            started = self._monotonic()
            if started < self._look_at:
                return
            async with self._store.view() as rows:
                generation = await rows.generation()
            self._cache.observe(generation)
            self._look_at = started + self._settings.notice_seconds
            self._stale_at = started + self._settings.stale_seconds

    async def _resolve(self, bearer: str, digest: bytes, now: float) -> Principal:
        epoch = self._cache.epoch
        try:
            async with self._store.view() as rows:
                entry = await (self._from_key(bearer, rows, now) if is_key(bearer) else self._from_token(bearer, rows))
        except ApplianceError as error:
            if error.code == "unauthenticated":
                await self._deny_bearer(digest)
            raise
        if entry.principal.is_admin:
            await self._record(
                entry.principal.subject,
                "session.grant_all_spaces",
                f"bearer:{digest.hex()[:16]}",
                "allow",
                {"spaces": len(entry.principal.spaces)},
            )
        self._cache.put(digest, entry, epoch)
        return entry.principal

    async def _from_token(self, bearer: str, rows: Rows) -> CachedPrincipal:
        claims: AccessClaims = self._issuer.read(bearer)
        user = await rows.user(claims.user)
        if user is None or user.disabled or not await rows.is_session_alive(claims.session, claims.user):
            raise bad_token()
        principal = Principal(
            subject=f"user:{user.name}",
            kind="user",
            roles=_roles(user),
            spaces=await _spaces(rows, user),
            requests_per_minute=user.requests_per_minute,
        )
        return CachedPrincipal(principal, claims.expires_at)

    async def _from_key(self, bearer: str, rows: Rows, now: float) -> CachedPrincipal:
        key = await rows.key_by_hash(secret_hash(bearer))
        if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise bad_token()
        owner = await rows.user(key.owner)
        if owner is None or owner.disabled:
            raise bad_token()
        principal = Principal(
            subject=f"key:{key.id}",
            kind="key",
            roles=_key_roles(key, owner),
            spaces=_cut(await _spaces(rows, owner), key),
            requests_per_minute=key.requests_per_minute,
            behind=f"user:{owner.name}" if key.global_role is None else None,
        )
        return CachedPrincipal(principal, math.inf if key.expires_at is None else key.expires_at)

    async def _fresh_user(self, name: str, encoded: str) -> User | None:
        """The user, unless disabled or given another password while this one was being verified."""
        async with self._store.view() as rows:
            user = await rows.user(name)
            unchanged = await rows.password_hash(name) == encoded
        return user if user is not None and not user.disabled and unchanged else None

    async def _begin_session(self, user: User) -> TokenPair:
        now = int(self._now())
        family, token = new_id("s_"), new_secret(REFRESH_PREFIX)
        async with self._store.change(alters_principals=False) as rows:
            await rows.forget_refresh_tokens(now)
            await rows.add_refresh_token(secret_hash(token), family, user.name, now + self._settings.refresh_seconds)
            await self._record(f"user:{user.name}", "session.login", f"session:{family}", "allow")
        access = self._issuer.issue(user.name, _roles(user), family)
        return TokenPair(access, token, self._issuer.lifetime_seconds)

    async def _end_family(self, family: str, user: str, reason: str) -> None:
        async with self._store.change() as rows:
            await rows.revoke_sessions(int(self._now()), family=family)
            await self._record(f"user:{user}", "session.refresh", f"session:{family}", "deny", {"reason": reason})
        self._cache.forget()

    async def _login_denied(self, name: str, reason: str) -> NoReturn:
        await self._deny("session.login", f"user:{name}", reason)
        raise ApplianceError("unauthenticated", "the user name or the password is wrong", hint="check both and try again")

    async def _deny_bearer(self, digest: bytes) -> None:
        await self._deny("session.authenticate", "anonymous", "not_valid", f"bearer:{digest.hex()[:16]}")

    async def _deny(self, action: str, actor: str, reason: str, resource: str = "session:none") -> None:
        """Record a denial. A flood is counted rather than written line by line, so that nobody fills the disk from outside."""
        suppressed = self._denials.admit(self._monotonic())
        if suppressed is not None:
            await self._record(actor, action, resource, "deny", {"reason": reason, "suppressed_before": suppressed})

    async def _record(self, actor: str, action: str, resource: str, outcome: Outcome, detail: Mapping[str, str | int] | None = None) -> None:
        await self._audit.append(actor=actor, action=action, resource=resource, outcome=outcome, detail=detail)


class _Denials:
    """Lets ``per_second`` denials through and counts the others."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._tokens = per_second
        self._at = 0.0
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """How many were suppressed before this one; None when this one is suppressed too."""
        self._tokens = min(self._per_second, self._tokens + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def _roles(user: User) -> frozenset[str]:
    """The user's role; none for one that only a newer release knows."""
    return frozenset({user.role}) & roles.ALL


def _key_roles(key: ApiKey, owner: User) -> frozenset[str]:
    """What a key may at most: an ordinary one is no agent and no operator, a member only when its owner has a member's rights."""
    if key.role == ADMIN_KEY_ROLE:
        return _roles(owner)
    if key.global_role is None:
        return frozenset({MEMBER}) if owner.role in {ADMIN, MEMBER} else frozenset()
    is_held = key.global_role in roles.AGENTS or owner.role in {ADMIN, key.global_role}
    return frozenset({key.global_role}) & roles.SPECIAL if is_held else frozenset()


async def _spaces(rows: Rows, user: User) -> Mapping[str, SpaceRole]:
    """Spaces of a user; an administrator owns every one, explicitly."""
    if user.role == ADMIN:
        return MappingProxyType(dict.fromkeys(await rows.spaces(), SpaceRole.OWNER))
    return MappingProxyType(await rows.memberships(user.name))


def _cut(spaces: Mapping[str, SpaceRole], key: ApiKey) -> Mapping[str, SpaceRole]:
    """What is left of the owner's rights for a key."""
    most = SpaceRole.OWNER if key.role == ADMIN_KEY_ROLE else SpaceRole.parse(key.role)
    return MappingProxyType({name: min(role, most) for name, role in spaces.items() if key.spaces is None or name in key.spaces})
