"""A generation that is not what was installed any more never comes to run unseen, and its bundle repairs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.bundle.site.environment import make_environment
from appliance.bundle.site.inspection import history
from appliance.bundle.site.integrity import altered_files
from appliance.bundle.site.records import read_pending, read_state
from appliance.kit.errors import ApplianceError
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import SiteBed


@pytest.fixture
def bed(tmp_path: Path) -> SiteBed:
    """Release 2 runs, release 1 was before; files only."""
    bed = SiteBed(tmp_path)
    bed.install(FakeRelease(1), service="none")
    bed.upgrade(FakeRelease(2))
    return bed


@pytest.mark.parametrize(("boot", "is_made_again"), [("this", False), ("another", True)])
def test_an_environment_that_was_not_finished_is_believed_within_one_boot_only(bed: SiteBed, boot: str, is_made_again: bool) -> None:
    generation = bed.site.generation(FakeRelease(2).generation)
    mark = generation.path / "venv/installed.txt"
    left = generation.path / "venv/empty-after-the-power-cut.py"
    left.touch()
    if boot == "another":
        mark.chmod(0o644)
        mark.write_text("whole\n")
    make_environment(bed.site, generation, "/home", lambda _line: None, lambda _step: None)
    assert left.exists() is not is_made_again
    assert generation.python.exists()


CODE = "app/services/allinone/schemas.py"
DAMAGES = ["a byte", "gone", "longer", "a link", "a package", "the list of packages"]


def _damage(folder: Path, damage: str) -> str:
    if damage == "the list of packages":
        (folder / "venv.json").unlink()
        (folder / "venv.json").write_text("{}\n")
        return "venv.json"
    name = "venv/bin/activate" if damage == "a package" else CODE
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage == "a link":
        path.symlink_to("/etc/passwd")
    elif damage != "gone":
        path.write_bytes(data + b"#" if damage == "longer" else data[:-2] + b"#\n")
    return name


@pytest.mark.parametrize("damage", DAMAGES)
def test_nobody_rolls_back_to_a_generation_that_was_altered_and_its_bundle_repairs_it(bed: SiteBed, damage: str) -> None:
    old, before = FakeRelease(1), bed.site.state_file.read_bytes()
    folder = bed.site.generation(old.generation).path
    name = _damage(folder, damage)
    with pytest.raises(ApplianceError, match=name) as refused:
        bed.rollback(start=False)
    assert refused.value.code == "site_invalid"
    assert "repairs" in refused.value.hint
    assert (bed.site.state_file.read_bytes(), read_pending(bed.site)) == (before, None)
    assert bed.upgrade(old, allow_older=True, reason="repair").generation == old.generation
    assert altered_files(bed.site.generation(old.generation)) == []
    assert not [path for path in folder.rglob("*") if path.is_symlink() and "venv" not in path.parts]


@pytest.mark.parametrize("damage", ["a byte", "a package"])
def test_the_bundle_that_runs_given_again_repairs_what_runs(bed: SiteBed, damage: str) -> None:
    release = FakeRelease(2)
    generation = bed.site.generation(release.generation)
    _damage(generation.path, damage)
    assert bed.install(release, service="none").changed
    assert altered_files(generation) == []
    assert bed.site.current() == generation
    assert read_state(bed.site).previous == FakeRelease(1).generation, "the way back stays"
    assert [entry["verb"] for entry in history(bed.site)] == ["install", "upgrade", "install"]
    assert not bed.install(release, service="none").changed
