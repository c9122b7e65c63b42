"""Attacks on an installed site and accidents around it: each is refused with its code, and what runs stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.bundle.site import operations
from appliance.bundle.site.history import read_history
from appliance.bundle.site.layout import open_site
from appliance.bundle.site.locks import operation_lock
from appliance.bundle.site.operations import Surroundings
from appliance.bundle.site.records import Settings, read_state
from appliance.bundle.site.settle import settle
from appliance.kit.errors import ApplianceError
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import SiteBed

WEIGHTS = "models/llm/big-v1/weights.bin"


@pytest.fixture
def bed(tmp_path: Path) -> SiteBed:
    """A site with release 1, files only."""
    bed = SiteBed(tmp_path)
    bed.install(FakeRelease(1), service="none")
    return bed


def _refused(code: str, bed: SiteBed, release: FakeRelease, **options) -> ApplianceError:
    before = bed.site.current_link.readlink(), bed.site.state_file.read_bytes()
    with pytest.raises(ApplianceError) as refused:
        bed.upgrade(release, **options)
    assert refused.value.code == code, refused.value
    assert refused.value.hint
    assert (bed.site.current_link.readlink(), bed.site.state_file.read_bytes()) == before
    return refused.value


def _overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def test_a_delta_on_an_altered_file_is_refused_naming_the_file(bed: SiteBed) -> None:
    first = FakeRelease(1)
    weights = bed.site.generations / first.generation / WEIGHTS
    _overwrite(weights, weights.read_bytes()[:-1] + b"x")
    error = _refused("site_invalid", bed, FakeRelease(2), base=first)
    assert WEIGHTS in error.message
    bed.upgrade(FakeRelease(2))  # the whole bundle has its own bytes
    assert (bed.site.generations / FakeRelease(2).generation / WEIGHTS).read_bytes() == first.bundle.files[WEIGHTS]


def test_an_altered_file_is_never_linked_into_the_next_generation(bed: SiteBed) -> None:
    name = "app/services/allinone/schemas.py"
    file = bed.site.generations / FakeRelease(1).generation / name
    _overwrite(file, b"import os  # evil\n")
    bed.upgrade(FakeRelease(2))
    assert (bed.site.generations / FakeRelease(2).generation / name).read_bytes() == FakeRelease(1).bundle.files[name]


def test_a_delta_without_its_base_is_refused(bed: SiteBed) -> None:
    other = FakeRelease(2, extra={"app/other.bin": os.urandom(20_000)})
    _refused("bundle_incomplete", bed, FakeRelease(3, extra=other.extra), base=other)


def test_a_file_planted_in_an_unfinished_generation_is_replaced(bed: SiteBed, tmp_path: Path) -> None:
    release = FakeRelease(2)
    folder = bed.site.generations / release.generation
    (folder / "app/appliance").mkdir(parents=True)
    (tmp_path / "target").write_text("untouched")
    (folder / "app/appliance/__init__.py").symlink_to(tmp_path / "target")
    (folder / "app/sitecustomize.py").write_text("evil")
    (folder / "models").symlink_to(tmp_path)
    bed.upgrade(release)
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "llm").exists()
    assert not (folder / "app/sitecustomize.py").exists()
    assert not [path for path in folder.rglob("*") if path.is_symlink() and "venv" not in path.parts]


@pytest.mark.parametrize("name", ["generations", "trust", "bin"])
def test_a_folder_of_the_site_that_is_a_link_is_refused(bed: SiteBed, tmp_path: Path, name: str) -> None:
    (bed.site.path / name).rename(tmp_path / "elsewhere")
    (tmp_path / "site" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ApplianceError) as refused:
        open_site(tmp_path / "site")
    assert refused.value.code == "site_invalid"


@pytest.mark.parametrize("name", ["state.json", "pending.json", "site.json", "history.jsonl", "trust/root.dsse.json"])
def test_a_record_that_is_a_link_is_refused(bed: SiteBed, tmp_path: Path, name: str) -> None:
    path = bed.site.path / name
    (tmp_path / "planted").write_bytes(path.read_bytes() if path.exists() else b"{}\n")
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / "planted")
    with pytest.raises(ApplianceError) as refused:
        bed.upgrade(FakeRelease(2))
    assert refused.value.code == "site_invalid"


def test_a_current_link_that_leads_elsewhere_is_refused(bed: SiteBed) -> None:
    for target in ("../../etc", "/opt/other", "generations/../..", "generations/1-0123456789ab/../x"):
        bed.site.current_link.unlink()
        bed.site.current_link.symlink_to(target)
        with pytest.raises(ApplianceError) as refused:
            settle(bed.site)
        assert refused.value.code == "site_invalid"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_site_folder_of_another_user_is_refused(bed: SiteBed) -> None:
    os.chown(bed.site.generations, 12345, 12345)
    with pytest.raises(ApplianceError, match="belongs to user 12345"):
        open_site(bed.folder / "site")


def test_a_site_folder_that_others_may_write_is_refused(bed: SiteBed) -> None:
    bed.site.generations.chmod(0o777)
    with pytest.raises(ApplianceError, match="may be written by others"):
        open_site(bed.folder / "site")


@pytest.mark.parametrize("damage", ["cut", "change", "remove", "put in"])
def test_a_history_that_was_touched_is_found(bed: SiteBed, damage: str) -> None:
    for number in (2, 3):
        bed.upgrade(FakeRelease(number))
    lines = bed.site.history_file.read_bytes().splitlines(keepends=True)
    damaged = {
        "cut": lines[:-1],
        "change": [lines[0].replace(b"install", b"upgrade"), *lines[1:]],
        "remove": [lines[0], lines[2]],
        "put in": [lines[0], lines[0], *lines[1:]],
    }[damage]
    bed.site.history_file.write_bytes(b"".join(damaged))
    with pytest.raises(ApplianceError) as refused:
        read_history(bed.site, read_state(bed.site))
    assert refused.value.code == "site_invalid"
    _refused("site_invalid", bed, FakeRelease(4))


def test_a_second_command_is_refused_while_one_works(bed: SiteBed) -> None:
    with operation_lock(bed.site):
        _refused("site_busy", bed, FakeRelease(2))
        with pytest.raises(ApplianceError, match="another command"):
            bed.rollback()


def test_a_clock_that_was_set_back_does_not_make_an_expired_bundle_fresh(bed: SiteBed) -> None:
    state = json.loads(bed.site.state_file.read_bytes())
    text = bed.site.state_file.read_text().replace(state["last_seen"], "2039-01-01T00:00:00Z")
    bed.site.state_file.write_text(text)
    _refused("bundle_expired", bed, FakeRelease(2))


def test_records_with_unknown_keys_or_of_another_version_are_refused(bed: SiteBed) -> None:
    good = bed.site.state_file.read_bytes()
    for bad in (good.replace(b'"schema_version":1', b'"schema_version":2'), good.replace(b'{"generation"', b'{"extra":1,"generation"'), b"[]\n", good[:-2], b"\0" * 10):
        bed.site.state_file.write_bytes(bad)
        with pytest.raises(ApplianceError) as refused:
            read_state(bed.site)
        assert refused.value.code == "site_invalid"


@contextmanager
def _small_disk(folder: Path, size_kib: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=0755", "tmpfs", str(folder)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {made.stderr.decode()[:100]}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


STEPS = ["unpack", "environment", "complete", "settings", "pending", "guard", "prune"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_fills_at_any_step_leaves_the_box_as_it_is_and_the_command_repeatable(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with _small_disk(disk, 200_000):
        bed = SiteBed(disk)
        bed.install(FakeRelease(1), service="none")
        ballast = disk / "ballast"
        for number, step in enumerate(STEPS, 2):
            file = FakeRelease(number).write(tmp_path)

            def fill(reached: str, at: str = step) -> None:
                if reached == at:
                    _fill(ballast)

            failed = ""
            try:
                operations.upgrade(bed.folder / "site", file, bed.wishes(FakeRelease(number)), Surroundings(observe=fill))
            except ApplianceError as error:
                failed = error.code
            assert failed == ("" if step == "prune" else "disk_full"), f"{step}: {failed}"
            current = settle(bed.site)
            assert current.is_complete
            assert current.sequence in {number - 1, number}
            ballast.unlink()
            operations.upgrade(bed.folder / "site", file, bed.wishes(FakeRelease(number)))
            assert settle(bed.site).sequence == number, step
            assert not list(bed.site.path.glob(".*.tmp"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_too_little_space_is_said_before_the_first_byte(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with _small_disk(disk, 1024):
        settings = Settings(str(disk / "home"), service="none")
        with pytest.raises(ApplianceError, match="MiB more are needed") as refused:
            operations.install(disk / "site", FakeRelease(1).write(tmp_path), settings, operations.Wishes(FakeRelease(1).trust.pin))
        assert refused.value.code == "disk_full"
        assert not list((disk / "site/generations").iterdir())


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    for number in range(100_000):  # and no inode for a new name
        try:
            (path.parent / f"{path.name}-{number}").touch()
        except OSError:
            return
        (path.parent / f"{path.name}-{number}").unlink()
        return
