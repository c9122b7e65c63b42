"""Users and keys with the role of an agent or operator: who makes them, what their principal holds, and databases of older releases."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.identity.principal import SpaceRole
from appliance.identity.tables import SCHEMA
from appliance.kit.sql import Schema, downgrade_database, open_database, reading, writing
from tests.unit.identity_bed import PASSWORD, ROOT, Bed, code_of, open_bed

OLD = Schema(SCHEMA.name, SCHEMA.migrations, "0001")
OLD_ROWS = (
    "INSERT INTO identity_users VALUES ('anna', 'x', 'admin', 0, 600, 1), ('boris', 'x', 'member', 0, 600, 1)",
    "INSERT INTO identity_spaces VALUES ('legal', 'Legal', 1)",
    "INSERT INTO identity_members VALUES ('legal', 'boris', 'editor')",
    "INSERT INTO identity_keys VALUES ('k_1', 'h1', '', 'boris', 'editor', '[\"legal\"]', 60, 1, NULL, NULL)",
)


async def people(bed: Bed) -> None:
    directory = bed.identity.directory
    await directory.add_user(ROOT, "boss", PASSWORD, role="admin")
    await directory.add_user(ROOT, "oleg", PASSWORD, role="operator:level2")
    await bed.add_users("anna")
    for space in ("legal", "hr"):
        await directory.add_space(ROOT, space)
        await directory.grant(ROOT, space, "anna", SpaceRole.EDITOR)
        await directory.grant(ROOT, space, "oleg", SpaceRole.OWNER)


async def test_a_principal_holds_the_role_of_its_user_or_key(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        create, authenticate = bed.identity.directory.create_key, bed.identity.authenticate
        oleg, anna = await bed.principal_of("oleg"), await bed.principal_of("anna")
        assert (oleg.roles, oleg.account) == ({"operator:level2"}, "user:oleg")
        key, secret = await create(ROOT, role="agent:claude_opus", space_role="editor", owner="boss", spaces=["legal"])
        agent = await authenticate(secret)
        assert (agent.roles, dict(agent.spaces)) == ({"agent:claude_opus"}, {"legal": SpaceRole.EDITOR})
        assert agent.account == agent.subject == f"key:{key.id}", "two agents of one person are two"
        assert not agent.is_admin
        reader = await authenticate((await create(ROOT, role="agent:local_llm", owner="anna"))[1])
        assert dict(reader.spaces) == {"legal": SpaceRole.READER, "hr": SpaceRole.READER}
        program = await authenticate((await create(anna, role="editor"))[1])
        assert (program.roles, program.account) == ({"member"}, "user:anna")
        assert {user.name: user.role for user in await bed.identity.directory.users(ROOT)} == {
            "boss": "admin", "oleg": "operator:level2", "anna": "member",
        }  # fmt: skip
        assert {(made.role, made.global_role) for made in await bed.identity.directory.keys(anna)} == {
            ("reader", "agent:local_llm"),
            ("editor", None),
        }


async def test_a_key_never_has_a_global_role_that_its_maker_may_not_give(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        create, authenticate = bed.identity.directory.create_key, bed.identity.authenticate
        anna, oleg = await bed.principal_of("anna"), await bed.principal_of("oleg")
        for role in ("agent:local_llm", "operator:level1", "operator:level2"):
            assert await code_of(create(anna, role=role)) == "forbidden"
            assert bed.audit.records[-1][:3] == ("deny", "user:anna", "key.create")
        assert await code_of(create(oleg, role="operator:level1")) == "forbidden"
        assert await code_of(create(ROOT, role="operator:level1", owner="oleg")) == "invalid_request"
        assert await code_of(create(ROOT, role="operator:level1", owner="anna")) == "invalid_request"
        assert (await authenticate((await create(oleg, role="operator:level2"))[1])).roles == {"operator:level2"}
        assert (await authenticate((await create(ROOT, role="operator:level1", owner="boss"))[1])).roles == {"operator:level1"}
        plain = await authenticate((await create(oleg, role="owner"))[1])
        assert not plain.roles, "a member's rights are not among those that an operator could pass on"


async def test_stored_roles_that_do_not_fit_give_nothing(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        for number, role in enumerate(("operator:level2", "agent:from_the_future", "admin", "member", "system:scheduler")):
            secret = await bed.key_of("anna", role="editor", id=f"k_{number}", global_role=role)
            assert not (await bed.identity.authenticate(secret)).roles


@pytest.mark.parametrize("role", ["system:scheduler", "agent:*", "agent:", "operator:level3", "king", ""])
async def test_no_one_gets_a_role_that_is_not_for_them(tmp_path: Path, role: str) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        assert await code_of(bed.identity.directory.add_user(ROOT, "new", PASSWORD, role=role)) == "invalid_request"
        assert await code_of(bed.identity.directory.create_key(ROOT, role=role, owner="boss")) == "invalid_request"


async def test_a_space_role_goes_with_an_agents_or_operators_role_only(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        create = bed.identity.directory.create_key
        assert await code_of(create(ROOT, role="reader", space_role="owner", owner="anna")) == "invalid_request"
        assert await code_of(create(ROOT, role="admin", space_role="owner", owner="boss")) == "invalid_request"
        assert await code_of(create(ROOT, role="agent:local_llm", space_role="admin", owner="boss")) == "invalid_request"
        assert await code_of(create(ROOT, role="editor", space_role="editor", owner="anna")) == "ok"


async def test_an_executor_inside_the_box_edits_every_space_there_is_now(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await people(bed)
        directory = bed.identity.directory
        assert set((await directory.executor_principal("llm-1", "local_llm")).spaces) == {"legal", "hr"}
        await directory.add_space(ROOT, "new")
        assert (await directory.executor_principal("llm-1", "local_llm")).may("new", SpaceRole.EDITOR)


async def test_a_database_of_the_first_release_goes_on_working(tmp_path: Path) -> None:
    path = tmp_path / "identity.db"
    await _old_database(path)
    async with open_bed(tmp_path) as bed:
        assert [(user.name, user.role) for user in await bed.identity.directory.users(ROOT)] == [("anna", "admin"), ("boris", "member")]
        assert [(key.id, key.role, key.global_role, key.spaces) for key in await bed.identity.directory.keys(ROOT)] == [
            ("k_1", "editor", None, ("legal",))
        ]
        assert [member.subject for member in await bed.identity.directory.members(ROOT, "legal")] == ["user:boris"], "nothing cascaded"


async def test_an_older_release_reads_everything_and_coming_back_restores_the_roles(tmp_path: Path) -> None:
    path = tmp_path / "identity.db"
    await _old_database(path)
    async with open_bed(tmp_path) as bed:
        await bed.identity.directory.add_user(ROOT, "oleg", PASSWORD, role="operator:level1")
        agent, _ = await bed.identity.directory.create_key(ROOT, role="agent:local_llm", space_role="editor", owner="boris", spaces=["legal"])
    engine = await open_database(path)
    assert await downgrade_database(engine, {SCHEMA: "0001"}) == ["identity 0002 → 0001"]
    assert await _columns(engine, "identity_users") == ["name", "password_hash", "role", "disabled", "requests_per_minute", "created_at"]
    assert "global_role" not in await _columns(engine, "identity_keys")
    async with writing(engine) as connection:
        users = (await connection.execute(sa.text("SELECT name, role FROM identity_users ORDER BY name"))).all()
        assert users == [("anna", "admin"), ("boris", "member"), ("oleg", "member")]
        keys = dict(map(tuple, await connection.execute(sa.text("SELECT id, role FROM identity_keys"))))
        assert keys == {"k_1": "editor", agent.id: "editor"}
        assert (await connection.execute(sa.text("SELECT count(*) FROM identity_members"))).scalar_one() == 1
        await connection.execute(sa.text("INSERT INTO identity_users VALUES ('vera', 'x', 'member', 0, 600, 2)"))  # as the older release does
    await engine.dispose()
    async with open_bed(tmp_path) as bed:
        roles = {user.name: user.role for user in await bed.identity.directory.users(ROOT)}
        assert roles == {"anna": "admin", "boris": "member", "oleg": "operator:level1", "vera": "member"}
        assert {key.id: key.global_role for key in await bed.identity.directory.keys(ROOT)} == {"k_1": None, agent.id: "agent:local_llm"}
    engine = await open_database(path)
    assert await downgrade_database(engine, {SCHEMA: "0001"}) == ["identity 0002 → 0001"], "and once more"
    await engine.dispose()


async def _old_database(path: Path) -> None:
    engine = await open_database(path, OLD)
    async with writing(engine) as connection:
        for row in OLD_ROWS:
            await connection.execute(sa.text(row.replace(":", "\\:")))
    await engine.dispose()


async def _columns(engine: sa.ext.asyncio.AsyncEngine, table: str) -> list[str]:
    async with reading(engine) as connection:
        return await connection.run_sync(lambda sync: [str(column["name"]) for column in sa.inspect(sync).get_columns(table)])
