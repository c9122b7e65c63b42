"""Managing users, spaces, members and API keys: who may do it, what it changes, what the audit log says about it.

The rules (``tests/unit/test_identity_rbac.py`` has them as a table):

- *users*: administrators; everyone may change their own password by giving the old one.
- *spaces*: administrators make and remove them. Who does not belong to a space is told that it does not exist.
- *members* of a space: its owners.
- *keys*: everyone their own, never with more rights than they have; administrators those of all. A key cannot make keys, unless it is
  an administrator's key with role ``admin``. A key with an agent's or operator's role is made by administrators, or by who has that role;
  an operator's key needs an owner who is that operator, or an administrator. An agent's key belongs to whoever answers for the agent.

A change and its audit record stand or fall together: the record is durable before the transaction commits, and a log that cannot be
written rolls the change back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from appliance.audit.ports import Auditor
from appliance.audit.record import Detail
from appliance.identity import domain, roles, service_principals
from appliance.identity.domain import Member, Space, User
from appliance.identity.keys import KEY_PREFIX, ApiKey, new_id, new_secret, secret_hash
from appliance.identity.passwords import Passwords
from appliance.identity.principal import ADMIN, MEMBER, Principal, SpaceRole
from appliance.identity.principal_cache import PrincipalCache
from appliance.identity.settings import KEY_REQUESTS_PER_MINUTE, USER_REQUESTS_PER_MINUTE
from appliance.identity.store_sqlalchemy import Rows, SqlStore
from appliance.kit.errors import ApplianceError, not_found


class Directory:
    """Changes who exists and who may do what. ``actor`` is always the authenticated caller.

    Every method raises ApplianceError ``forbidden`` when the actor may not, ``not_found`` for what is absent or foreign,
    ``invalid_request`` for a bad name, ``conflict`` for one that is taken, and whatever the audit log raises.
    """

    def __init__(
        self,
        store: SqlStore,
        passwords: Passwords,
        audit: Auditor,
        cache: PrincipalCache,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._audit = audit
        self._cache = cache
        self._now = now

    # users

    async def users(self, actor: Principal) -> list[User]:
        """All users by name (administrators)."""
        await self._require_admin(actor, "user.list", "user:*")
        async with self._store.view() as rows:
            return await rows.users()

    async def add_user(
        self,
        actor: Principal,
        name: str,
        password: str,
        *,
        role: str = MEMBER,
        requests_per_minute: int = USER_REQUESTS_PER_MINUTE,
    ) -> User:
        """Make a user (administrators); ``role`` is ``admin``, ``member``, or an agent's or operator's (``roles``)."""
        name = domain.user_name(name)
        await self._require_admin(actor, "user.add", f"user:{name}")
        user = User(name, roles.user_role(role), False, domain.requests_per_minute(requests_per_minute), int(self._now()))
        encoded = await self._passwords.hash(password)
        async with self._changing(actor, "user.add", f"user:{name}", {"role": role}) as rows:
            await rows.add_user(user, encoded)
        return user

    async def set_password(self, actor: Principal, name: str, password: str) -> None:
        """Give a user a new password and end all sessions (administrators)."""
        await self._require_admin(actor, "user.set_password", f"user:{domain.user_name(name)}")
        await self._replace_password(actor, name, password)

    async def change_password(self, actor: Principal, current: str, password: str) -> None:
        """Change the actor's own password; all sessions end. ``unauthenticated`` when ``current`` is wrong."""
        name = actor.subject.removeprefix("user:")
        if actor.kind != "user":
            await self._forbid(actor, "user.set_password", actor.subject)
        async with self._store.view() as rows:
            encoded = await rows.password_hash(name)
        if not await self._passwords.verify(encoded, current):
            await self._deny(actor, "user.set_password", f"user:{name}")
            raise ApplianceError("unauthenticated", "the current password is wrong", hint="try again")
        await self._replace_password(actor, name, password)

    async def rehash(self, name: str, password: str) -> None:
        """Store the same password under today's parameters."""
        encoded = await self._passwords.hash(password)
        async with self._store.change(alters_principals=False) as rows:
            await rows.set_user(name, password_hash=encoded)

    async def set_disabled(self, actor: Principal, name: str, *, disabled: bool) -> None:
        """Shut a user out, keys and sessions included, or let them in again (administrators).

        The last administrator cannot be disabled: ``conflict``.
        """
        action, resource = "user.disable" if disabled else "user.enable", f"user:{domain.user_name(name)}"
        await self._require_admin(actor, action, resource)
        async with self._changing(actor, action, resource) as rows:
            if not await rows.set_user(name, disabled=disabled):
                raise not_found(f"user {name!r}")
            if disabled:
                await rows.revoke_sessions(int(self._now()), user=name)
            user = await rows.user(name)
            if disabled and user is not None and user.role == ADMIN and await rows.enabled_admins() == 0:
                raise ApplianceError("conflict", "this is the last administrator", hint="make another one first")

    # spaces and members

    async def spaces(self, actor: Principal) -> list[Space]:
        """The actor's spaces by name, with the actor's role."""
        async with self._store.view() as rows:
            titles = await rows.spaces()
        return [Space(name, text, actor.spaces[name]) for name, text in titles.items() if name in actor.spaces]

    async def space_names(self, actor: Principal) -> list[str]:
        """Names of all spaces (administrators)."""
        await self._require_admin(actor, "space.list", "space:*")
        async with self._store.view() as rows:
            return list(await rows.spaces())

    async def add_space(self, actor: Principal, name: str, title: str = "") -> Space:
        """Make a space (administrators, who own it as they own all)."""
        name, title = domain.space_name(name), domain.title(title or name)
        await self._require_admin(actor, "space.add", f"space:{name}")
        async with self._changing(actor, "space.add", f"space:{name}") as rows:
            if name in await rows.retired_spaces():
                raise ApplianceError(
                    "conflict",
                    "a removed space had this name and its documents are still being removed",
                    hint="try again in a moment; the box removes them while it runs, so start it if it is down",
                )
            await rows.add_space(name, title, int(self._now()))
        return Space(name, title, SpaceRole.OWNER)

    async def remove_space(self, actor: Principal, name: str) -> None:
        """Remove a space and its memberships (administrators); the name stays taken until the box has deleted its documents."""
        await self._require_admin(actor, "space.remove", f"space:{name}")
        async with self._changing(actor, "space.remove", f"space:{name}") as rows:
            if not await rows.remove_space(name):
                raise not_found(f"space {name!r}")
            await rows.retire_space(name, int(self._now()))

    async def has_space(self, name: str) -> bool:
        """For services of this box, about no actor's rights: whether the space is there now, read from the database."""
        async with self._store.view() as rows:
            return await rows.has_space(name)

    async def may_make_tasks(self, account: str, space: str) -> bool:
        """For services of this box: whether ``account`` (``Principal.account``) may make tasks in ``space`` now; asked when its schedule fires.

        An agent's key answers for itself; a person's schedule ends with the person, with the membership or with the space.
        """
        async with self._store.view() as rows:
            if not await rows.has_space(space):
                return False
            if account.startswith("key:"):
                key = await rows.key(account.removeprefix("key:"))
                if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= self._now()):
                    return False
                user = await rows.user(key.owner)
            else:
                user = await rows.user(account.removeprefix("user:"))
            if user is None or user.disabled:
                return False
            role = SpaceRole.OWNER if user.role == ADMIN else (await rows.memberships(user.name)).get(space)
            return role is not None and role >= SpaceRole.EDITOR

    async def executor_principal(self, executor_id: str, executor_type: str) -> Principal:
        """For services of this box: the principal of an executor that runs inside it, with the spaces there are now."""
        async with self._store.view() as rows:
            return service_principals.executor_principal(executor_id, executor_type, await rows.spaces())

    async def retired_spaces(self) -> list[str]:
        """For the box: names of removed spaces whose documents are still to be deleted."""
        async with self._store.view() as rows:
            return await rows.retired_spaces()

    async def release_space_name(self, name: str) -> None:
        """For the box: nothing of the removed space is left, its name may be taken again."""
        async with self._store.change(alters_principals=False) as rows:
            await rows.forget_retired_space(name)

    async def members(self, actor: Principal, space: str) -> list[Member]:
        """Who belongs to a space (its owners)."""
        await self._require_owner(actor, "member.list", space)
        async with self._store.view() as rows:
            await _require_space(rows, space)
            return await rows.members(space)

    async def grant(self, actor: Principal, space: str, subject: str, role: SpaceRole) -> None:
        """Give ``user:<name>`` (or ``<name>``) a role in a space, replacing the one held (its owners)."""
        await self._require_owner(actor, "member.grant", space)
        name = domain.member_name(subject)
        detail = {"member": f"user:{name}", "role": role.name.lower()}
        async with self._changing(actor, "member.grant", f"space:{space}", detail) as rows:
            await _require_space(rows, space)
            if await rows.user(name) is None:
                raise not_found(f"user {name!r}")
            await rows.put_member(space, name, role)

    async def revoke(self, actor: Principal, space: str, subject: str) -> None:
        """Take a member out of a space (its owners)."""
        await self._require_owner(actor, "member.revoke", space)
        name = domain.member_name(subject)
        async with self._changing(actor, "member.revoke", f"space:{space}", {"member": f"user:{name}"}) as rows:
            if not await rows.remove_member(space, name):
                raise not_found(f"member {name!r}")

    # API keys

    async def keys(self, actor: Principal) -> list[ApiKey]:
        """The actor's own keys; all of them for an administrator."""
        async with self._store.view() as rows:
            return await rows.keys(None if actor.is_admin else await _user_behind(rows, actor))

    async def create_key(
        self,
        actor: Principal,
        *,
        title: str = "",
        role: str = "reader",
        space_role: str | None = None,
        owner: str | None = None,
        spaces: Sequence[str] | None = None,
        requests_per_minute: int = KEY_REQUESTS_PER_MINUTE,
        expires_at: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; returns it and its secret, which is shown this once.

        Args:
            actor: the owner-to-be, or an administrator.
            title: what it is for.
            role: most it may do: ``reader``, ``editor``, ``owner``, or ``admin`` (owner must be one; no ``spaces``); or the role of the
                agent or operator that will use it.
            space_role: most an agent or operator may do in a space; None = ``reader``.
            owner: user name; None for the actor's own.
            spaces: the only spaces it sees, which the owner must belong to; None for all of the owner's, now and later.
            requests_per_minute: its rate limit.
            expires_at: seconds since the epoch; None for never.
        """
        resource = f"user:{owner or actor.subject.removeprefix('user:')}"
        if not actor.is_admin and (actor.kind != "user" or owner not in {None, actor.subject.removeprefix("user:")}):
            await self._forbid(actor, "key.create", resource)
        most, special = roles.key_roles(role, space_role)
        if special is not None and not actor.is_admin and special not in actor.roles:
            await self._forbid(actor, "key.create", resource)
        if expires_at is not None and expires_at <= self._now():
            raise ApplianceError("invalid_request", "the key would already be expired", hint="choose a later time")
        limit, text = domain.requests_per_minute(requests_per_minute), domain.title(title)
        names = None if spaces is None else tuple(sorted({domain.space_name(space) for space in spaces}))
        key_id, secret = new_id("k_"), new_secret(KEY_PREFIX)
        async with self._changing(actor, "key.create", f"key:{key_id}", {"owner": resource, "role": role, "space_role": most}) as rows:
            user = await rows.user(owner or await _user_behind(rows, actor))
            if user is None:
                raise not_found(f"user {owner!r}")
            await _require_key_fits(rows, user, role, names)
            key = ApiKey(key_id, text, user.name, most, names, limit, int(self._now()), expires_at, None, special)
            await rows.add_key(key, secret_hash(secret))
        return key, secret

    async def revoke_key(self, actor: Principal, key_id: str) -> None:
        """End a key at once (its owner, or an administrator); revoking it twice is no error."""
        async with self._store.view() as rows:
            key = await rows.key(key_id)
            is_own = key is not None and key.owner == await _user_behind(rows, actor)
        if key is None or not (actor.is_admin or (is_own and actor.kind == "user")):
            await self._deny(actor, "key.revoke", f"key:{key_id}")
            raise not_found(f"key {key_id!r}")
        if key.revoked_at is None:
            async with self._changing(actor, "key.revoke", f"key:{key_id}") as rows:
                await rows.revoke_key(key_id, int(self._now()))

    async def _replace_password(self, actor: Principal, name: str, password: str) -> None:
        encoded = await self._passwords.hash(password)
        async with self._changing(actor, "user.set_password", f"user:{name}") as rows:
            if not await rows.set_user(name, password_hash=encoded):
                raise not_found(f"user {name!r}")
            await rows.revoke_sessions(int(self._now()), user=name)

    @asynccontextmanager
    async def _changing(self, actor: Principal, action: str, resource: str, detail: Detail | None = None) -> AsyncIterator[Rows]:
        """One change: rows, then the audit record, then the commit, then every cached principal is forgotten.

        When the commit fails or the caller goes away after the record was handed in, a second record takes it back.
        """
        is_recorded = False
        try:
            async with self._store.change() as rows:
                yield rows
                is_recorded = True
                await self._audit.append(actor=actor.subject, action=action, resource=resource, outcome="ok", detail=detail)
        except BaseException:
            if is_recorded:
                with suppress(ApplianceError):
                    await self._audit.append(
                        actor=actor.subject,
                        action=action,
                        resource=resource,
                        outcome="error",
                        detail={"rolled_back": True},
                    )
            raise
        self._cache.forget()

    async def _require_admin(self, actor: Principal, action: str, resource: str) -> None:
        if not actor.is_admin:
            await self._forbid(actor, action, resource)

    async def _require_owner(self, actor: Principal, action: str, space: str) -> None:
        if actor.may(space, SpaceRole.OWNER):
            return
        if space in actor.spaces:
            await self._forbid(actor, action, f"space:{space}")
        await self._deny(actor, action, f"space:{space}")
        raise not_found(f"space {space!r}")

    async def _forbid(self, actor: Principal, action: str, resource: str) -> NoReturn:
        await self._deny(actor, action, resource)
        raise ApplianceError("forbidden", f"{actor.subject} may not do this", hint="ask an administrator")

    async def _deny(self, actor: Principal, action: str, resource: str) -> None:
        await self._audit.append(actor=actor.subject, action=action, resource=resource, outcome="deny")


async def _require_space(rows: Rows, name: str) -> None:
    """An administrator's principal may be older than the removal of a space."""
    if name not in await rows.spaces():
        raise not_found(f"space {name!r}")


async def _require_key_fits(rows: Rows, owner: User, role: str, spaces: Sequence[str] | None) -> None:
    """A key must not promise what its owner does not have."""
    if role == ADMIN and (owner.role != ADMIN or spaces is not None):
        raise ApplianceError(
            "invalid_request",
            "an admin key needs an administrator as owner and no list of spaces",
            hint="use role owner",
        )
    if role in roles.OPERATORS and owner.role not in {ADMIN, role}:
        raise ApplianceError(
            "invalid_request",
            f"{owner.name} is not {role}",
            hint="name an owner who has this role, or an administrator",
        )
    held = await rows.spaces() if owner.role == ADMIN else await rows.memberships(owner.name)
    for space in spaces or ():
        if space not in held:
            raise not_found(f"space {space!r}")


async def _user_behind(rows: Rows, actor: Principal) -> str:
    """User name of the actor; for a key, its owner's. A service (the CLI) has none: an empty name, which no user bears."""
    if actor.kind == "key":
        key = await rows.key(actor.subject.removeprefix("key:"))
        return "" if key is None else key.owner
    return actor.subject.removeprefix("user:") if actor.kind == "user" else ""
