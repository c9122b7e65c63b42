"""Identity in a relational database: one transaction object for reads, one for changes. No rules here, only rows.

Every change that may alter a Principal adds one to the generation row in the same transaction; running processes compare it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.identity.domain import Member, User
from appliance.identity.keys import ApiKey
from appliance.identity.principal import ADMIN, MEMBER, SpaceRole
from appliance.identity.tables import generation, keys, members, refresh_tokens, retired_spaces, spaces, users
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import reading, writing

_ROLE = sa.func.coalesce(users.c.global_role, users.c.role)
_USER = (users.c.name, _ROLE, users.c.disabled, users.c.requests_per_minute, users.c.created_at)
_KEY = tuple(keys.c[name] for name in ApiKey.__dataclass_fields__)


class SqlStore:
    """Opens transactions on the identity tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def view(self) -> AsyncIterator[Rows]:
        """One consistent snapshot."""
        async with reading(self._engine) as connection:
            yield Rows(connection)

    @asynccontextmanager
    async def change(self, *, alters_principals: bool = True) -> AsyncIterator[Rows]:
        """One write transaction, committed when the block ends without raising.

        Raises:
            ApplianceError: ``conflict`` when a name is taken or something still refers to it.
        """
        try:
            async with writing(self._engine) as connection:
                yield Rows(connection)
                if alters_principals:
                    await connection.execute(sa.update(generation).values(value=generation.c.value + 1))
        except sa.exc.IntegrityError as error:
            raise ApplianceError("conflict", "this name is taken, or what it refers to is gone", hint="list what exists, then try again") from error


class Rows:
    """The tables inside one transaction. Absent things are None; nothing here checks rights."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def generation(self) -> int:
        """Changes so far."""
        return int((await self._run(sa.select(generation.c.value))).scalar_one())

    # users

    async def user(self, name: str) -> User | None:
        """One user."""
        row = (await self._run(sa.select(*_USER).where(users.c.name == name))).first()
        return None if row is None else User(*row)

    async def users(self) -> list[User]:
        """All users by name."""
        return [User(*row) for row in await self._run(sa.select(*_USER).order_by(users.c.name))]

    async def password_hash(self, name: str) -> str | None:
        """Encoded hash of a user's password."""
        value = (await self._run(sa.select(users.c.password_hash).where(users.c.name == name))).scalar()
        return None if value is None else str(value)

    async def add_user(self, user: User, password_hash: str) -> None:
        """Insert a user."""
        special = None if user.role in {ADMIN, MEMBER} else user.role
        values = asdict(user) | {"role": MEMBER if special else user.role, "global_role": special}
        await self._run(sa.insert(users).values(**values, password_hash=password_hash))

    async def set_user(self, name: str, **columns: object) -> bool:
        """Set columns of a user; False when there is none."""
        return (await self._run(sa.update(users).where(users.c.name == name).values(**columns))).rowcount > 0

    async def enabled_admins(self) -> int:
        """How many administrators can log in."""
        query = sa.select(sa.func.count()).where(users.c.role == "admin", sa.not_(users.c.disabled))
        return int((await self._run(query)).scalar_one())

    # spaces

    async def spaces(self) -> dict[str, str]:
        """Title by name, in order of names."""
        rows = await self._run(sa.select(spaces.c.name, spaces.c.title).order_by(spaces.c.name))
        return {str(name): str(title) for name, title in rows}

    async def add_space(self, name: str, title: str, created_at: int) -> None:
        """Insert a space."""
        await self._run(sa.insert(spaces).values(name=name, title=title, created_at=created_at))

    async def remove_space(self, name: str) -> bool:
        """Delete a space and its memberships; False when there was none."""
        return (await self._run(sa.delete(spaces).where(spaces.c.name == name))).rowcount > 0

    async def has_space(self, name: str) -> bool:
        """Whether a space of this name is there."""
        return (await self._run(sa.select(spaces.c.name).where(spaces.c.name == name))).first() is not None

    async def retire_space(self, name: str, retired_at: int) -> None:
        """Remember the name of a removed space until its documents are gone."""
        await self._run(sa.insert(retired_spaces).values(name=name, retired_at=retired_at))

    async def retired_spaces(self) -> list[str]:
        """Names whose documents are still to be deleted, oldest first."""
        return list((await self._run(sa.select(retired_spaces.c.name).order_by(retired_spaces.c.retired_at))).scalars())

    async def forget_retired_space(self, name: str) -> None:
        """The name is free again."""
        await self._run(sa.delete(retired_spaces).where(retired_spaces.c.name == name))

    async def memberships(self, user: str) -> dict[str, SpaceRole]:
        """Role by space of one user."""
        rows = await self._run(sa.select(members.c.space, members.c.role).where(members.c.user == user))
        return {str(space): SpaceRole.parse(role) for space, role in rows}

    async def members(self, space: str) -> list[Member]:
        """Who belongs to a space, by name."""
        query = sa.select(members.c.user, members.c.role).where(members.c.space == space).order_by(members.c.user)
        return [Member(f"user:{user}", SpaceRole.parse(role)) for user, role in await self._run(query)]

    async def put_member(self, space: str, user: str, role: SpaceRole) -> None:
        """Insert or replace a membership."""
        await self.remove_member(space, user)
        await self._run(sa.insert(members).values(space=space, user=user, role=role.name.lower()))

    async def remove_member(self, space: str, user: str) -> bool:
        """Delete a membership; False when there was none."""
        query = sa.delete(members).where(members.c.space == space, members.c.user == user)
        return (await self._run(query)).rowcount > 0

    # API keys

    async def key(self, key_id: str) -> ApiKey | None:
        """A key by its id."""
        return self._key((await self._run(sa.select(*_KEY).where(keys.c.id == key_id))).first())

    async def key_by_hash(self, secret_hash: str) -> ApiKey | None:
        """A key by the hash of its secret."""
        return self._key((await self._run(sa.select(*_KEY).where(keys.c.secret_hash == secret_hash))).first())

    async def keys(self, owner: str | None = None) -> list[ApiKey]:
        """Keys of one owner, or all; oldest first."""
        query = sa.select(*_KEY).order_by(keys.c.created_at, keys.c.id)
        rows = await self._run(query if owner is None else query.where(keys.c.owner == owner))
        return [found for row in rows if (found := self._key(row)) is not None]

    async def add_key(self, key: ApiKey, secret_hash: str) -> None:
        """Insert a key."""
        values = asdict(key)
        values["spaces"] = sa.null() if key.spaces is None else list(key.spaces)
        await self._run(sa.insert(keys).values(**values, secret_hash=secret_hash))

    async def revoke_key(self, key_id: str, now: int) -> bool:
        """Mark a key revoked; False when it does not exist or is revoked already."""
        query = sa.update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=now)
        return (await self._run(query)).rowcount > 0

    # refresh tokens

    async def refresh_token(self, token_hash: str) -> sa.Row[*tuple[Any, ...]] | None:
        """Row of a refresh token: ``family, user, expires_at, used_at, revoked_at``."""
        return (await self._run(sa.select(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash))).first()

    async def add_refresh_token(self, token_hash: str, family: str, user: str, expires_at: int) -> None:
        """Insert a refresh token."""
        await self._run(sa.insert(refresh_tokens).values(token_hash=token_hash, family=family, user=user, expires_at=expires_at))

    async def spend_refresh_token(self, token_hash: str, now: int) -> bool:
        """Mark it used; False when it was used before."""
        query = sa.update(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash, refresh_tokens.c.used_at.is_(None))
        return (await self._run(query.values(used_at=now))).rowcount > 0

    async def revoke_sessions(self, now: int, *, family: str | None = None, user: str | None = None) -> int:
        """Revoke the refresh tokens of a family or of a user; returns how many were alive."""
        query = sa.update(refresh_tokens).where(refresh_tokens.c.revoked_at.is_(None))
        if family is not None:
            query = query.where(refresh_tokens.c.family == family)
        if user is not None:
            query = query.where(refresh_tokens.c.user == user)
        return (await self._run(query.values(revoked_at=now))).rowcount

    async def is_session_alive(self, family: str, user: str) -> bool:
        """Whether the family exists, belongs to the user and was not revoked."""
        query = sa.select(refresh_tokens.c.token_hash).where(
            refresh_tokens.c.family == family, refresh_tokens.c.user == user, refresh_tokens.c.revoked_at.is_(None)
        )
        return (await self._run(query.limit(1))).first() is not None

    async def forget_refresh_tokens(self, expired_before: int) -> None:
        """Delete what expired before the given time."""
        await self._run(sa.delete(refresh_tokens).where(refresh_tokens.c.expires_at < expired_before))

    @staticmethod
    def _key(row: Sequence[Any] | None) -> ApiKey | None:
        if row is None:
            return None
        values = dict(zip(ApiKey.__dataclass_fields__, row, strict=True))
        values["spaces"] = None if values["spaces"] is None else tuple(values["spaces"])
        return ApiKey(**values)

    async def _run(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]:
        return await self._connection.execute(statement)
