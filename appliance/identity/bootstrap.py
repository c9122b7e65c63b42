"""Builds identity on a home: the only file here that names where things lie.

``identity.db`` users, spaces, keys · ``keys/issuer.key.pem`` signs access tokens · ``admin.password``, ``admin.key`` the first way in.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from appliance.audit.durable_files import write_once
from appliance.audit.ports import Auditor
from appliance.identity.domain import User
from appliance.identity.keys import KEY_PREFIX, ApiKey, is_key, new_id, new_secret, secret_hash
from appliance.identity.passwords import Passwords
from appliance.identity.principal import ADMIN
from appliance.identity.service import ADMIN_KEY_ROLE, Identity
from appliance.identity.settings import KEY_REQUESTS_PER_MINUTE, USER_REQUESTS_PER_MINUTE, IdentitySettings
from appliance.identity.store_sqlalchemy import SqlStore
from appliance.identity.tables import SCHEMA
from appliance.identity.tokens import TokenIssuer, load_or_create_issuer_key
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import open_database

DATABASE_NAME: Final = "identity.db"
ADMIN_USER: Final = "admin"
DEFAULT_SPACE: Final = "default"
PASSWORD_NAME: Final = "admin.password"  # noqa: S105 - the name of a file
KEY_NAME: Final = "admin.key"


@asynccontextmanager
async def open_identity(
    home: Path, audit: Auditor, settings: IdentitySettings | None = None, *, passwords: Passwords | None = None
) -> AsyncIterator[Identity]:
    """The identity service on ``home``, closed at the end of the block; makes database and issuer key when absent.

    Raises:
        ApplianceError: ``home_invalid``, ``disk_full``.
    """
    settings = settings or IdentitySettings()
    key = load_or_create_issuer_key(home / "keys")
    engine = await open_database(home / DATABASE_NAME, SCHEMA)
    hashing = passwords or Passwords()
    issuer = TokenIssuer(key, issuer=settings.issuer, audience=settings.audience, lifetime_seconds=settings.access_seconds)
    try:
        yield Identity(SqlStore(engine), issuer, hashing, audit, settings)
    finally:
        hashing.close()
        await engine.dispose()


async def bootstrap_admin(home: Path, audit: Auditor, *, passwords: Passwords | None = None) -> bool:
    """Give a new home its first user, key and space; returns False when it has them.

    The secrets go to ``admin.password`` and ``admin.key`` (mode 0600) *before* the rows that make them work are committed in one
    transaction. So a crash leaves either files without rows, which the next start completes with the same secrets, or everything. On
    a home that has the user nothing is touched: who deleted the files did so on purpose.
    """
    engine = await open_database(home / DATABASE_NAME, SCHEMA)
    hashing = passwords or Passwords()
    try:
        store = SqlStore(engine)
        async with store.view() as rows:
            if await rows.user(ADMIN_USER) is not None:
                return False
        password = _secret_file(home / PASSWORD_NAME, new_secret("")[:24])
        secret = _secret_file(home / KEY_NAME, new_secret(KEY_PREFIX))
        if not is_key(secret):
            raise ApplianceError("home_invalid", f"{KEY_NAME} does not hold an API key", hint="delete it and start again")
        return await _first_rows(store, audit, await hashing.hash(password), secret)
    finally:
        if passwords is None:
            hashing.close()
        await engine.dispose()


async def _first_rows(store: SqlStore, audit: Auditor, encoded: str, secret: str) -> bool:
    now = int(time.time())
    key = ApiKey(new_id("k_"), "first administrator", ADMIN_USER, ADMIN_KEY_ROLE, None, KEY_REQUESTS_PER_MINUTE, now, None, None)
    async with store.change() as rows:
        if await rows.user(ADMIN_USER) is not None:  # another process was faster, with the same files
            return False
        await rows.add_user(User(ADMIN_USER, ADMIN, False, USER_REQUESTS_PER_MINUTE, now), encoded)
        await rows.add_key(key, secret_hash(secret))
        await rows.add_space(DEFAULT_SPACE, "Default", now)
        await audit.append(
            actor="system:bootstrap",
            action="home.bootstrap",
            resource=f"user:{ADMIN_USER}",
            outcome="ok",
            detail={"key": f"key:{key.id}", "space": DEFAULT_SPACE},
        )
    return True


def _secret_file(path: Path, fresh: str) -> str:
    """Content of a secret file; writes ``fresh`` when there is none."""
    write_once(path, f"{fresh}\n".encode(), mode=0o600)
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ApplianceError("home_invalid", f"cannot read {path.name}", hint=f"check its owner: {path}") from error
