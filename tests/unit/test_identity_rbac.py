"""Who may do what: the table of rights, and what keys carry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.identity import domain
from appliance.identity.directory import Directory
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from tests.unit.identity_bed import PASSWORD, ROOT, Bed, code_of, open_bed

Action = Callable[[Directory, Principal], Awaitable[object]]
ACTIONS: dict[str, Action] = {
    "list users": lambda d, a: d.users(a),
    "add user": lambda d, a: d.add_user(a, "new", PASSWORD),
    "set password": lambda d, a: d.set_password(a, "victim", PASSWORD),
    "disable": lambda d, a: d.set_disabled(a, "victim", disabled=True),
    "add space": lambda d, a: d.add_space(a, "new"),
    "remove space": lambda d, a: d.remove_space(a, "legal"),
    "list members": lambda d, a: d.members(a, "legal"),
    "grant": lambda d, a: d.grant(a, "legal", "user:victim", SpaceRole.READER),
    "revoke": lambda d, a: d.revoke(a, "legal", "user:victim"),
    "grant in an absent space": lambda d, a: d.grant(a, "absent", "user:victim", SpaceRole.READER),
    "key for oneself": lambda d, a: d.create_key(a, role="reader"),
    "key for another": lambda d, a: d.create_key(a, owner="victim"),
    "revoke another's key": lambda d, a: d.revoke_key(a, "k_victim"),
}
OK, NO, GONE = "ok", "forbidden", "not_found"
#                            admin owner editor reader stranger key(owner) admin key
TABLE: dict[str, tuple[str, ...]] = {
    "list users":               (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "add user":                 (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "set password":             (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "disable":                  (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "add space":                (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "remove space":             (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "list members":             (OK,   OK,   NO,    NO,    GONE, OK,   OK),
    "grant":                    (OK,   OK,   NO,    NO,    GONE, OK,   OK),
    "revoke":                   (OK,   OK,   NO,    NO,    GONE, OK,   OK),
    "grant in an absent space": (GONE, GONE, GONE,  GONE,  GONE, GONE, GONE),
    "key for oneself":          (OK,   OK,   OK,    OK,    OK,   NO,   OK),
    "key for another":          (OK,   NO,   NO,    NO,    NO,   NO,   OK),
    "revoke another's key":     (OK,   GONE, GONE,  GONE,  GONE, GONE, OK),
}  # fmt: skip
WHO = ("admin", "owner", "editor", "reader", "stranger", "owner's key", "admin's key")


async def people(bed: Bed) -> dict[str, Principal]:
    directory = bed.identity.directory
    await directory.add_user(ROOT, "boss", PASSWORD, role="admin")
    await bed.add_users("owner", "editor", "reader", "stranger", "victim")
    await directory.add_space(ROOT, "legal")
    for name in ("owner", "editor", "reader"):
        await directory.grant(ROOT, "legal", name, SpaceRole.parse(name))
    await directory.grant(ROOT, "legal", "victim", SpaceRole.READER)
    await bed.key_of("victim", id="k_victim")
    secrets = {"owner's key": await bed.key_of("owner"), "admin's key": await bed.key_of("boss", role="admin", id="k_boss")}
    principals = {name: await bed.principal_of(name) for name in ("owner", "editor", "reader", "stranger")}
    keys = {name: await bed.identity.authenticate(secret) for name, secret in secrets.items()}
    return {**principals, **keys, "admin": await bed.principal_of("boss")}


@pytest.mark.parametrize("action", ACTIONS)
async def test_the_table_of_rights_holds_and_every_refusal_is_recorded(action: str, tmp_path: Path) -> None:
    assert set(TABLE) == set(ACTIONS)
    for who, expected in zip(WHO, TABLE[action], strict=True):
        async with open_bed(tmp_path / who) as bed:
            principals = await people(bed)
            before = len(bed.audit.records)
            code = await code_of(ACTIONS[action](bed.identity.directory, principals[who]))
            assert code == expected, who
            outcomes = [(record[0], record[1]) for record in bed.audit.records[before:]]
            if expected != "ok" and "absent" not in action:
                assert outcomes == [("deny", principals[who].subject)], who
            elif expected == "ok" and not action.startswith("list"):
                assert outcomes == [("ok", principals[who].subject)], who


@given(
    owner_role=st.sampled_from([None, "reader", "editor", "owner"]),
    key_role=st.sampled_from(["reader", "editor", "owner"]),
    only=st.sampled_from([None, (), ("legal",), ("hr",), ("legal", "hr")]),
)
@settings(max_examples=30, deadline=None)
def test_a_key_never_exceeds_its_owner_its_role_or_its_spaces(
    tmp_path_factory: pytest.TempPathFactory, owner_role: str | None, key_role: str, only: tuple[str, ...] | None
) -> None:
    import asyncio

    async def scenario() -> None:
        async with open_bed(tmp_path_factory.mktemp("keys")) as bed:
            await bed.add_users("anna")
            for space in ("legal", "hr", "other"):
                await bed.identity.directory.add_space(ROOT, space)
            if owner_role is not None:
                await bed.identity.directory.grant(ROOT, "legal", "anna", SpaceRole.parse(owner_role))
            key = await bed.identity.authenticate(await bed.key_of("anna", role=key_role, spaces=only))
            assert not key.is_admin
            expected = {}
            if owner_role is not None and (only is None or "legal" in only):
                expected = {"legal": min(SpaceRole.parse(owner_role), SpaceRole.parse(key_role))}
            assert dict(key.spaces) == expected

    asyncio.run(scenario())


async def test_an_administrators_key_with_a_lesser_role_is_no_administrator(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        limited = await bed.identity.authenticate(await bed.key_of("boss", role="reader", id="k_r"))
        assert not limited.is_admin
        assert dict(limited.spaces) == {"legal": SpaceRole.READER}
        assert limited.requests_per_minute == 5


async def test_keys_end_when_revoked_or_expired(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        anna = await bed.principal_of("anna")
        key, secret = await bed.identity.directory.create_key(anna, expires_at=int(bed.clock.seconds) + 60)
        assert (await bed.identity.authenticate(secret)).subject == f"key:{key.id}"
        assert [found.id for found in await bed.identity.directory.keys(anna)] == [key.id]
        bed.clock.seconds += 60
        assert await code_of(bed.identity.authenticate(secret)) == "unauthenticated"
        key, secret = await bed.identity.directory.create_key(anna)
        await bed.identity.authenticate(secret)
        await bed.identity.directory.revoke_key(anna, key.id)
        await bed.identity.directory.revoke_key(anna, key.id)
        assert await code_of(bed.identity.authenticate(secret)) == "unauthenticated"


async def test_a_key_cannot_promise_what_its_owner_lacks(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        principals = await people(bed)
        create = bed.identity.directory.create_key
        assert await code_of(create(principals["owner"], role="admin")) == "invalid_request"
        assert await code_of(create(principals["owner"], spaces=["absent"])) == "not_found"
        assert await code_of(create(principals["stranger"], spaces=["legal"])) == "not_found"
        assert await code_of(create(principals["admin"], role="admin", spaces=["legal"])) == "invalid_request"
        assert await code_of(create(principals["owner"], role="king")) == "invalid_request"
        assert await code_of(create(principals["owner"], expires_at=1)) == "invalid_request"
        assert await code_of(create(principals["owner"], requests_per_minute=0)) == "invalid_request"
        assert await code_of(create(ROOT)) == "not_found"  # the console has no user of its own


async def test_taking_a_role_away_acts_on_the_next_request(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        token = await bed.token_of("reader")
        assert (await bed.identity.authenticate(token)).may("legal", SpaceRole.READER)
        await bed.identity.directory.revoke(ROOT, "legal", "reader")
        assert not (await bed.identity.authenticate(token)).spaces
        await bed.identity.directory.grant(ROOT, "legal", "reader", SpaceRole.OWNER)
        assert (await bed.identity.authenticate(token)).may("legal", SpaceRole.OWNER)
        await bed.identity.directory.remove_space(ROOT, "legal")
        assert not (await bed.identity.authenticate(token)).spaces


async def test_an_administrator_owns_every_space_explicitly_and_the_log_says_so(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        admin = (await people(bed))["admin"]
        assert dict(admin.spaces) == {"legal": SpaceRole.OWNER}
        assert ("allow", "user:boss", "session.grant_all_spaces") in [record[:3] for record in bed.audit.records]
        await bed.identity.directory.add_space(admin, "hr", "Люди")
        assert set((await bed.principal_of("boss")).spaces) == {"legal", "hr"}


async def test_the_last_administrator_cannot_be_shut_out(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        principals = await people(bed)
        directory = bed.identity.directory
        assert await code_of(directory.set_disabled(ROOT, "boss", disabled=True)) == "conflict"
        assert (await bed.principal_of("boss")).is_admin
        await directory.add_user(principals["admin"], "deputy", PASSWORD, role="admin")
        assert await code_of(directory.set_disabled(ROOT, "boss", disabled=True)) == "ok"
        assert await code_of(directory.set_disabled(ROOT, "nobody", disabled=True)) == "not_found"


async def test_a_new_password_ends_every_session(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        pair = await bed.identity.login("anna", PASSWORD)
        anna = await bed.identity.authenticate(pair.access_token)
        change = bed.identity.directory.change_password
        assert await code_of(change(anna, "wrong", "a new password")) == "unauthenticated"
        assert await code_of(change(anna, PASSWORD, "short")) == "invalid_request"
        assert await code_of(change(anna, PASSWORD, "a new password")) == "ok"
        assert await code_of(bed.identity.authenticate(pair.access_token)) == "unauthenticated"
        assert await code_of(bed.identity.login("anna", PASSWORD)) == "unauthenticated"
        assert await code_of(bed.identity.login("anna", "a new password")) == "ok"
        assert await code_of(bed.identity.directory.set_password(ROOT, "nobody", PASSWORD)) == "not_found"


async def test_a_change_that_cannot_be_recorded_does_not_happen(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        bed.audit.is_full = True
        assert await code_of(bed.identity.directory.add_user(ROOT, "boris", PASSWORD)) == "disk_full"
        assert await code_of(bed.identity.directory.add_space(ROOT, "legal")) == "disk_full"
        bed.audit.is_full = False
        assert [user.name for user in await bed.identity.directory.users(ROOT)] == ["anna"]
        assert await bed.identity.directory.space_names(ROOT) == []


async def test_taken_names_are_conflicts_and_leave_no_record(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        await bed.identity.directory.add_space(ROOT, "legal")
        assert await code_of(bed.identity.directory.add_user(ROOT, "anna", PASSWORD)) == "conflict"
        assert await code_of(bed.identity.directory.add_space(ROOT, "legal")) == "conflict"
        assert await code_of(bed.identity.directory.grant(ROOT, "legal", "nobody", SpaceRole.READER)) == "not_found"
        assert await code_of(bed.identity.directory.revoke(ROOT, "legal", "anna")) == "not_found"
        assert bed.audit.records[-1][0] == "ok"


@pytest.mark.parametrize("name", ["", "A", ".a", "-a", "a/b", "..", "a b", "a\n", "я", "a" * 64, "a\x00", "a%2f"])
def test_bad_names_are_refused(name: str) -> None:
    for check in (domain.space_name, domain.user_name):
        with pytest.raises(ApplianceError):
            check(name)


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "a" * 63])
def test_good_names_pass(name: str) -> None:
    assert domain.space_name(name) == domain.user_name(name) == name
