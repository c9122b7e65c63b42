"""The database of a service: versions, transactions, errors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.identity.tables import SCHEMA, metadata, spaces, users
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import Schema, migrate, open_database, reading, writing


async def test_a_new_file_gets_its_tables_and_is_private(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "deep" / "identity.db", SCHEMA)
    async with reading(engine) as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    await engine.dispose()
    assert set(metadata.tables) <= set(names)
    assert (tmp_path / "deep" / "identity.db").stat().st_mode & 0o777 == 0o600


async def test_the_migrations_build_exactly_the_tables_the_code_uses(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = await open_database(tmp_path / "identity.db", SCHEMA)
    async with reading(engine) as connection:
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"version_table": SCHEMA.version_table}), metadata)
        )
    await engine.dispose()
    assert difference == []


async def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "identity.db", SCHEMA)
    with pytest.raises(ZeroDivisionError):
        async with writing(engine) as connection:
            await connection.execute(sa.insert(spaces).values(name="a", title="", created_at=0))
            _ = 1 / 0
    async with reading(engine) as connection:
        assert (await connection.execute(sa.select(spaces))).all() == []
    await engine.dispose()


async def test_a_failed_migration_leaves_no_table_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_migrations"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "v0001_breaks.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision='0001'\ndown_revision=None\n"
        "def upgrade():\n    op.create_table('half', sa.Column('a', sa.Integer))\n    raise RuntimeError('power cut')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    engine = await open_database(tmp_path / "x.db")
    with pytest.raises(RuntimeError):
        await migrate(engine, Schema("broken", "broken_migrations", "0001"))
    async with reading(engine) as connection:
        assert await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()) == []
    await engine.dispose()


async def test_tables_of_a_newer_release_are_refused(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "identity.db", SCHEMA)
    async with writing(engine) as connection:
        await connection.execute(sa.text("UPDATE identity_schema_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(ApplianceError) as caught:
        await open_database(tmp_path / "identity.db", SCHEMA)
    assert caught.value.code == "home_invalid"


async def test_foreign_keys_are_enforced(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "identity.db", SCHEMA)
    with pytest.raises(sa.exc.IntegrityError):
        async with writing(engine) as connection:
            await connection.execute(sa.insert(metadata.tables["identity_members"]).values(space="no", user="no", role="reader"))
    await engine.dispose()


async def test_concurrent_read_modify_write_loses_no_update(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "identity.db", SCHEMA)
    row = {"password_hash": "", "role": "member", "disabled": False, "requests_per_minute": 0, "created_at": 0}
    async with writing(engine) as connection:
        await connection.execute(sa.insert(users).values(name="a", **row))

    async def add_one() -> None:
        async with writing(engine) as connection:
            value = (await connection.execute(sa.select(users.c.created_at))).scalar_one()
            await connection.execute(sa.update(users).values(created_at=value + 1))

    await asyncio.gather(*(add_one() for _ in range(40)))
    async with reading(engine) as connection:
        assert (await connection.execute(sa.select(users.c.created_at))).scalar_one() == 40
    await engine.dispose()


async def test_a_file_that_is_not_a_database_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "identity.db").write_bytes(b"this is not a database, not at all" * 200)
    with pytest.raises(ApplianceError) as caught:
        await open_database(tmp_path / "identity.db", SCHEMA)
    assert caught.value.code == "home_invalid"
    assert caught.value.hint


def test_a_current_schema_starts_without_alembic_and_racing_starts_agree(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib, sys
from appliance.identity.tables import SCHEMA
from appliance.kit.sql import open_database
async def main():
    engine = await open_database(pathlib.Path({str(tmp_path)!r}) / "identity.db", SCHEMA)
    await engine.dispose()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    racing = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [child.wait(60) for child in racing] == [0, 0, 0]
    again = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert again.stdout.strip() == "False"
