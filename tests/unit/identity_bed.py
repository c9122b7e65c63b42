"""Identity on a temporary home with cheap hashes, clocks in hand, and an audit that remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from argon2 import PasswordHasher

from appliance.audit.record import Detail, Outcome, encode_fields
from appliance.identity.keys import KEY_PREFIX, ApiKey, new_secret, secret_hash
from appliance.identity.passwords import Passwords
from appliance.identity.principal import ADMIN, Principal, SpaceRole
from appliance.identity.service import Identity
from appliance.identity.settings import IdentitySettings
from appliance.identity.store_sqlalchemy import SqlStore
from appliance.identity.tables import SCHEMA
from appliance.identity.tokens import TokenIssuer, load_or_create_issuer_key
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import open_database

PASSWORD = "correct horse"
ROOT = Principal("cli:test", "service", frozenset({ADMIN}), spaces={"legal": SpaceRole.OWNER, "hr": SpaceRole.OWNER})


class RememberingAudit:
    """Keeps records in memory; refuses all of them while ``is_full``."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, str]] = []
        self.details: list[Detail | None] = []
        self.is_full = False

    async def append(
        self, *, actor: str, action: str, resource: str, outcome: Outcome, detail: Detail | None = None, trace_id: str | None = None
    ) -> int:
        if self.is_full:
            raise ApplianceError("disk_full", "full")
        encode_fields(time="", trace_id=trace_id or "", actor=actor, action=action, resource=resource, outcome=outcome, detail=detail)
        self.records.append((outcome, actor, action, resource))
        self.details.append(detail)
        return len(self.records)


@dataclass
class Clock:
    seconds: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Bed:
    identity: Identity
    audit: RememberingAudit
    clock: Clock
    store: SqlStore
    home: Path
    statements: list[str] = field(default_factory=list)

    async def add_users(self, *names: str) -> None:
        for name in names:
            await self.identity.directory.add_user(ROOT, name, PASSWORD)

    async def token_of(self, name: str) -> str:
        return (await self.identity.login(name, PASSWORD)).access_token

    async def principal_of(self, name: str) -> Principal:
        return await self.identity.authenticate(await self.token_of(name))

    async def key_of(self, owner: str, **changes: object) -> str:
        """Secret of a key, put into the store directly."""
        values: dict[str, object] = {"title": "", "role": "owner", "spaces": None, "requests_per_minute": 5, "expires_at": None}
        values |= {"revoked_at": None, "created_at": 1, "owner": owner, "id": f"k_{len(changes)}{owner}", **changes}
        secret = new_secret(KEY_PREFIX)
        async with self.store.change() as rows:
            await rows.add_key(ApiKey(**values), secret_hash(secret))  # type: ignore[arg-type]
        return secret


def cheap_passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@asynccontextmanager
async def open_bed(home: Path, *, clock: Clock | None = None, **settings: object) -> AsyncIterator[Bed]:
    clock = clock or Clock()
    chosen = IdentitySettings(**settings)  # type: ignore[arg-type]
    await _copy_empty_database(home / "identity.db")
    engine = await open_database(home / "identity.db", SCHEMA)
    store, audit, passwords = SqlStore(engine), RememberingAudit(), cheap_passwords()
    key = load_or_create_issuer_key(home / "keys")
    issuer = TokenIssuer(key, issuer=chosen.issuer, audience=chosen.audience, lifetime_seconds=chosen.access_seconds, now=clock)
    try:
        yield Bed(Identity(store, issuer, passwords, audit, chosen, now=clock, monotonic=clock), audit, clock, store, home)
    finally:
        passwords.close()
        await engine.dispose()


_empty: list[bytes] = []


async def _copy_empty_database(path: Path) -> None:
    """Migrating takes 0.2 s; the tests of migrations are elsewhere."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _empty:
        await (await open_database(path, SCHEMA)).dispose()
        _empty.append(path.read_bytes())
    else:
        path.write_bytes(_empty[0])


async def code_of(awaitable: object) -> str:
    """Error code that awaiting gives, or ``ok``."""
    try:
        await awaitable  # type: ignore[misc]
    except ApplianceError as error:
        return error.code
    return "ok"
