"""Templates of a site: seen at once, whole or absent, before those of the release; administrators change them, on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.templates.folder_catalogue import FolderCatalogue
from services.sgr.templates.managed_templates import ManagedTemplates
from tests.unit.sgr.office_files import manifest, paragraphs, texts

ADMIN = Principal("user:admin", "user", frozenset({"admin"}))
ANNA = Principal("user:anna", "user")
CONTENT = paragraphs("{{ title }}")


class ListAuditor:
    """Records in a list."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, str]] = []

    async def append(self, *, actor: str, action: str, resource: str, outcome: str, detail: Any = None, trace_id: str | None = None) -> int:
        self.records.append((actor, action, resource, outcome))
        return len(self.records)


def test_what_is_put_is_seen_by_others_at_once_and_replaces(tmp_path: Path) -> None:
    writer, reader = FolderCatalogue(tmp_path), FolderCatalogue(tmp_path)
    assert reader.names() == ["agenda", "milestone-plan", "report", "slide-deck"]
    writer.put(manifest(CONTENT), CONTENT)
    assert "letter" in reader.names()
    first = reader.get("letter")
    other = paragraphs("new {{ title }}")
    writer.put(manifest(other), other)
    assert reader.get("letter").digest != first.digest
    assert texts(OfficeRenderer(reader.read).render(reader.get("letter"), {"title": "T"}, "en", [])) == ["new T"]
    with pytest.raises(ApplianceError) as caught:
        reader.read(first, "en")
    assert caught.value.code == "conflict"
    writer.remove("letter")
    with pytest.raises(ApplianceError) as caught:
        reader.get("letter")
    assert caught.value.code == "not_found"


def test_a_site_puts_its_own_in_front_of_the_release(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path)
    found = manifest(CONTENT)
    catalogue.put(type(found)(**{**{field: getattr(found, field) for field in found.__struct_fields__}, "name": "report"}), CONTENT)
    assert not catalogue.get("report").builtin
    catalogue.remove("report")
    assert catalogue.get("report").builtin
    with pytest.raises(ApplianceError) as caught:
        catalogue.remove("report")
    assert caught.value.code == "conflict"


def test_a_write_that_was_killed_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    catalogue = FolderCatalogue(tmp_path)
    catalogue.put(manifest(CONTENT), CONTENT)
    (tmp_path / "abc.tmp").write_bytes(b"half")
    again = FolderCatalogue(tmp_path)
    assert again.get("letter").digest == manifest(CONTENT).digest
    assert [path.name for path in tmp_path.iterdir()] == ["letter.template"]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b'{"schema_version":1}\nx'])
def test_what_was_damaged_on_the_disk_is_told_and_hides_nothing_else(tmp_path: Path, damage: bytes) -> None:
    catalogue = FolderCatalogue(tmp_path)
    catalogue.put(manifest(CONTENT), CONTENT)
    path = tmp_path / "letter.template"
    path.write_bytes(damage or path.read_bytes()[:-5])
    with pytest.raises(ApplianceError, match="damaged") as caught:
        catalogue.get("letter")
    assert caught.value.code == "template_invalid"
    assert "report" in catalogue.names()


@pytest.mark.parametrize("name", ["../report", "a/b", "..", "", "REPORT"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        FolderCatalogue(tmp_path).get(name)
    assert caught.value.code == "not_found"


async def test_administrators_add_and_remove_and_everyone_looks(tmp_path: Path) -> None:
    audit = ListAuditor()
    templates = ManagedTemplates(FolderCatalogue(tmp_path / "home"), audit)
    file = tmp_path / "letter.docx"
    file.write_bytes(CONTENT)
    for attempt in (templates.add(file, "letter", None, ANNA), templates.check(file, "letter", None, ANNA), templates.remove("report", ANNA)):
        with pytest.raises(ApplianceError) as caught:
            await attempt
        assert caught.value.code == "forbidden"
    checked = await templates.check(file, "letter", None, ADMIN)
    assert [one.name for one in await templates.list(ANNA)] == ["agenda", "milestone-plan", "report", "slide-deck"]
    added = await templates.add(file, "letter", None, ADMIN, title="Letter")
    assert (added.digest, added.titles["ru"]) == (checked.digest, "Letter")
    assert (await templates.describe("letter", ANNA)).schemas["ru"]["required"] == ["title"]
    await templates.remove("letter", ADMIN)
    assert audit.records == [
        ("user:anna", "template.add", "template:letter", "deny"),
        ("user:anna", "template.check", "template:letter", "deny"),
        ("user:anna", "template.remove", "template:report", "deny"),
        ("user:admin", "template.add", "template:letter", "ok"),
        ("user:admin", "template.remove", "template:letter", "ok"),
    ]


async def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    audit = ListAuditor()
    templates = ManagedTemplates(FolderCatalogue(tmp_path / "home"), audit)
    file = tmp_path / "evil.docx"
    file.write_bytes(b"no office file")
    with pytest.raises(ApplianceError) as caught:
        await templates.add(file, "letter", None, ADMIN)
    assert caught.value.code == "template_invalid"
    assert audit.records == []
    assert list((tmp_path / "home").iterdir()) == []
