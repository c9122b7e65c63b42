"""Tables taken back to an earlier release: rows stay, all or nothing, and what has no way back refuses before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.kit.errors import ApplianceError
from appliance.kit.sql import Schema, downgrade_database, open_database, reading, writing

FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("NAME_rows", sa.Column("a", sa.Integer))
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("NAME_rows", sa.Column("b", sa.Integer))
"""
WAY_BACK = """
def downgrade():
    with op.batch_alter_table("NAME_rows") as batch:
        batch.drop_column("b")
"""


@pytest.fixture
def make_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a package of two migrations, the second with the given way back."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, way_back: str) -> Schema:
        package = tmp_path / f"{name}_way_migrations"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "v0001_a.py").write_text(FIRST.replace("NAME", name))
        (package / "v0002_b.py").write_text((SECOND + way_back).replace("NAME", name))
        return Schema(name=name, migrations=package.name, head="0002")

    return make


async def _rows(engine, name: str) -> tuple[list[str], int, str]:
    async with reading(engine) as connection:
        columns = await connection.run_sync(lambda sync: [column["name"] for column in sa.inspect(sync).get_columns(f"{name}_rows")])
        count = (await connection.execute(sa.text(f"SELECT count(*) FROM {name}_rows"))).scalar_one()
        version = (await connection.execute(sa.text(f"SELECT version_num FROM {name}_schema_version"))).scalar_one()
    return columns, count, version


async def test_rows_written_by_the_newer_release_stay(tmp_path: Path, make_schema) -> None:
    schema = make_schema("good", WAY_BACK)
    engine = await open_database(tmp_path / "x.db", schema)
    async with writing(engine) as connection:
        await connection.execute(sa.text("INSERT INTO good_rows (a, b) VALUES (1, 2)"))
    assert await downgrade_database(engine, {schema: "0001"}, check=True) == ["good 0002 → 0001"]
    assert await _rows(engine, "good") == (["a", "b"], 1, "0002"), "a check changes nothing"
    assert await downgrade_database(engine, {schema: "0001"}) == ["good 0002 → 0001"]
    assert await _rows(engine, "good") == (["a"], 1, "0001")
    assert await downgrade_database(engine, {schema: "0001"}) == [], "again is nothing"
    await engine.dispose()


@pytest.mark.parametrize("way_back", ["", WAY_BACK + "    raise RuntimeError('power cut')\n"])
async def test_all_tables_of_a_database_go_back_or_none(tmp_path: Path, make_schema, way_back: str) -> None:
    good, bad = make_schema("good", WAY_BACK), make_schema("bad", way_back)
    engine = await open_database(tmp_path / "x.db", good, bad)
    with pytest.raises((ApplianceError, RuntimeError)) as refused:
        await downgrade_database(engine, {good: "0001", bad: "0001"})
    if not way_back:
        assert isinstance(refused.value, ApplianceError)
        assert refused.value.code == "conflict"
        assert "revision 0002 has no way back" in refused.value.message
    assert (await _rows(engine, "good"))[2] == (await _rows(engine, "bad"))[2] == "0002"
    await engine.dispose()


async def test_tables_of_an_unknown_release_are_left_alone(tmp_path: Path, make_schema) -> None:
    schema = make_schema("good", WAY_BACK)
    engine = await open_database(tmp_path / "x.db", schema)
    async with writing(engine) as connection:
        await connection.execute(sa.text("UPDATE good_schema_version SET version_num = '0009'"))
    with pytest.raises(ApplianceError, match="does not know"):
        await downgrade_database(engine, {schema: "0001"})
    await engine.dispose()
