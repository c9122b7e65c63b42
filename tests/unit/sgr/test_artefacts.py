"""Files that were made: durable, owned, counted, and gone with their thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import open_database
from services.sgr.artefacts import OwnedArtefacts
from services.sgr.ports import Rendered
from services.sgr.sqlalchemy_artefacts import SqlAlchemyArtefacts
from services.sgr.tables import SCHEMA
from tests.unit.sgr.office_files import CITED

ANNA = Principal("user:anna", "user", spaces={"legal": SpaceRole.READER})
BORIS = Principal("user:boris", "user", spaces={"legal": SpaceRole.READER})
FILE = Rendered(b"x" * 100, "Report.docx", "application/x")


@asynccontextmanager
async def store(home: Path, quota: int = 1000) -> AsyncIterator[SqlAlchemyArtefacts]:
    engine = await open_database(home / "box.db", SCHEMA)
    try:
        yield SqlAlchemyArtefacts(engine, home / "artefacts", quota_bytes=quota)
    finally:
        await engine.dispose()


def blobs(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "artefacts").rglob("*") if path.is_file())


async def test_a_file_is_kept_and_belongs_to_who_made_it(tmp_path: Path) -> None:
    async with store(tmp_path) as made:
        artefacts = OwnedArtefacts(made)
        kept = await made.put(ANNA.subject, "th_1", FILE, [CITED])
        found, path = await artefacts.open(kept.id, ANNA)
        assert (found, path.read_bytes()) == (kept, FILE.content)
        assert list(await artefacts.list(ANNA)) == [kept]
        assert list(await artefacts.list(ANNA, "th_2")) == []
        assert list(await artefacts.list(BORIS)) == []
        for attempt in (artefacts.get(kept.id, BORIS), artefacts.open(kept.id, BORIS), artefacts.delete(kept.id, BORIS)):
            with pytest.raises(ApplianceError) as caught:
                await attempt
            assert caught.value.code == "not_found"
        assert await artefacts.forget_thread("th_1", BORIS) == 0
    async with store(tmp_path) as again:
        assert (await again.get(ANNA.subject, kept.id))[0] == kept


async def test_who_has_lost_a_space_that_is_cited_sees_neither_content_nor_name(tmp_path: Path) -> None:
    async with store(tmp_path) as made:
        artefacts = OwnedArtefacts(made)
        kept = await made.put(ANNA.subject, "th_1", FILE, [CITED])
        free = await made.put(ANNA.subject, "th_1", FILE, [replace(CITED, space="")])  # from a draft of her own
        outside = Principal("user:anna", "user")
        shown = {one.id: one for one in await artefacts.list(outside)}
        assert shown[free.id] == free
        assert (shown[kept.id].withheld, shown[kept.id].name, shown[kept.id].digest, shown[kept.id].size_bytes) == (True, "", "", 0)
        with pytest.raises(ApplianceError) as caught:
            await artefacts.open(kept.id, outside)
        assert caught.value.code == "not_found"
        assert (await artefacts.get(kept.id, ANNA)).name == "Report.docx"


async def test_equal_files_share_their_bytes_and_the_last_one_takes_them_along(tmp_path: Path) -> None:
    async with store(tmp_path) as made:
        first = await made.put(ANNA.subject, "th_1", FILE, [])
        second = await made.put(BORIS.subject, "th_2", FILE, [])
        assert blobs(tmp_path) == [first.digest]
        assert await made.forget_thread(ANNA.subject, "th_1") == 1
        assert blobs(tmp_path) == [first.digest]
        await made.delete(BORIS.subject, second.id)
        assert blobs(tmp_path) == []


async def test_the_quota_is_per_owner_and_a_refused_file_leaves_nothing(tmp_path: Path) -> None:
    async with store(tmp_path, quota=250) as made:
        one, two, three = (replace(FILE, content=bytes([number]) * 100) for number in range(3))
        await made.put(ANNA.subject, "th_1", one, [])
        await made.put(ANNA.subject, "th_1", two, [])
        before = blobs(tmp_path)
        with pytest.raises(ApplianceError) as caught:
            await made.put(ANNA.subject, "th_1", three, [])
        assert caught.value.code == "quota_exceeded"
        assert blobs(tmp_path) == before
        await made.put(BORIS.subject, "th_2", three, [])


async def test_what_a_killed_process_left_is_collected_and_nothing_else(tmp_path: Path) -> None:
    async with store(tmp_path) as made:
        kept = await made.put(ANNA.subject, "th_1", FILE, [])
        waste = tmp_path / "artefacts" / "ab" / ("ab" + "0" * 62)
        waste.parent.mkdir(exist_ok=True)
        waste.write_bytes(b"x")
        (tmp_path / "artefacts" / "tmp" / "half").write_bytes(b"x")
        assert await made.collect() == 2
        assert blobs(tmp_path) == [kept.digest]


def test_the_schema_head_is_the_last_migration() -> None:
    from alembic.script import ScriptDirectory

    import services.sgr.migrations

    folder = str(Path(services.sgr.migrations.__file__).parent)
    assert ScriptDirectory(folder, version_locations=[folder]).get_heads() == [SCHEMA.head]
