"""Going back keeps what was written in between; what cannot go back says so before anything is changed; the history tells everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.bundle.site import operations
from appliance.bundle.site.inspection import history, status
from appliance.bundle.site.records import Settings, read_state
from appliance.kit.errors import ApplianceError
from appliance.testing.small_bundles import SmallKey, small_trust
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import ROOT, site_bed


def test_what_was_written_before_and_after_the_upgrade_is_there_after_the_rollback(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        bed.write("before")
        bed.upgrade(FakeRelease(2, "0003"))
        bed.write("after")
        assert bed.head() == "0003"
        done = bed.rollback(reason="slow answers")
        assert bed.serving() == 1
        assert bed.notes() == ["before", "after"]
        assert bed.head() == "0001"
        assert "taken back with all rows" in done.data
        assert history(bed.site)[-1]["detail"]["reason"] == "slow answers"


def test_a_change_without_a_way_back_is_refused_while_the_newer_release_runs_on(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        bed.write("before")
        bed.upgrade(FakeRelease(2, "0002", "no-way-back"))
        bed.write("after")
        pid = json.loads((bed.home / "run/box.json").read_text())["pid"]
        with pytest.raises(ApplianceError, match="no way back") as refused:
            bed.rollback()
        assert refused.value.code == "conflict"
        assert json.loads((bed.home / "run/box.json").read_text())["pid"] == pid, "it was not even restarted"
        done = bed.rollback(restore_data=True)
        assert bed.serving() == 1
        assert bed.notes() == ["before"]
        assert "set aside" in done.data
        (aside,) = (bed.home / "upgrade-copies").glob("*/set-aside/*/box.db")
        assert b"after" in aside.read_bytes()


def test_an_older_bundle_is_refused_also_after_a_rollback_and_an_override_is_on_record(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(2), service="none")
        bed.upgrade(FakeRelease(3))
        bed.rollback()
        for release in (FakeRelease(1), FakeRelease(2, extra={"app/x.txt": b"x"})):
            with pytest.raises(ApplianceError) as refused:
                bed.upgrade(release)
            assert refused.value.code == "bundle_older"
        with pytest.raises(ApplianceError, match="needs a reason"):
            bed.upgrade(FakeRelease(1), allow_older=True)
        bed.upgrade(FakeRelease(1), allow_older=True, reason="ticket 4711")
        assert bed.verbs() == ["install", "upgrade", "rollback", "override", "upgrade"]
        assert history(bed.site)[3]["detail"]["reason"] == "ticket 4711"
        assert read_state(bed.site).sequence == 3, "the highest stays the highest"


def test_the_same_bundle_again_changes_nothing(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        assert bed.install(FakeRelease(1), service="none").changed
        before = {path: path.stat().st_mtime_ns for path in (bed.folder / "site").rglob("*") if path.is_file()}
        assert not bed.install(FakeRelease(1), service="none").changed
        assert before == {path: path.stat().st_mtime_ns for path in (bed.folder / "site").rglob("*") if path.is_file()}


def test_a_new_root_of_trust_is_kept_when_the_upgrade_is_confirmed_and_never_goes_back(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        trust = small_trust()
        bed.install(FakeRelease(1, trust=trust), service="none")
        trust.rotate([SmallKey("new")])
        bed.upgrade(FakeRelease(2, trust=trust))
        bed.rollback()
        assert bed.verbs() == ["install", "root-rotation", "upgrade", "rollback"]
        old = FakeRelease(3, trust=small_trust())
        with pytest.raises(ApplianceError) as refused:
            bed.upgrade(old, pin=operations.Pin())
        assert refused.value.code == "trust_invalid"


def test_equal_files_are_hard_links_and_a_delta_takes_the_rest_from_what_is_installed(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        first = FakeRelease(1)
        bed.install(first, service="none")
        second = FakeRelease(2)
        weights = bytearray(FakeRelease().bundle.files["models/llm/big-v1/weights.bin"])
        weights[9000] ^= 1
        second.extra["models/llm/big-v1/weights.bin"] = bytes(weights)
        assert second.write(tmp_path, base=first).stat().st_size < second.write(tmp_path).stat().st_size - 10_000
        bed.upgrade(second, base=first)
        old, new = bed.site.generations / first.generation, bed.site.generations / second.generation
        assert (new / "models/llm/big-v1/weights.bin").read_bytes() == bytes(weights)
        same = "app/services/allinone/schemas.py"
        assert (new / same).stat().st_ino == (old / same).stat().st_ino
        assert (new / same).stat().st_mode & 0o222 == 0


def test_old_generations_are_removed_but_never_the_current_or_the_one_before(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1), service="none")
        for number in range(2, 6):
            bed.upgrade(FakeRelease(number))
        assert [generation.sequence for generation in bed.site.installed()] == [3, 4, 5]
        bed.rollback(f"{FakeRelease(3).generation}")
        bed.upgrade(FakeRelease(6), keep=2)
        assert [generation.sequence for generation in bed.site.installed()] == [3, 6]


def test_the_installer_file_does_it_all_with_a_bare_python(tmp_path: Path) -> None:
    from appliance.bundle.site.first_contact import write_zipapp

    installer = write_zipapp(tmp_path / "appliance-install.pyz")
    assert installer.read_bytes() == write_zipapp(tmp_path / "again.pyz").read_bytes()
    release, second = FakeRelease(1), FakeRelease(2, "0002")
    fingerprint = f"sha256:{release.trust.fingerprint}"

    def run(*arguments: object) -> dict:
        command = [sys.executable, "-S", "-E", "-I", str(installer), *map(str, arguments)]
        ended = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    with site_bed(tmp_path) as bed:
        place = ("--site", bed.folder / "site", "--json")
        assert run("verify", release.write(tmp_path), "--fingerprint", fingerprint, "--json")["sequence"] == 1
        assert run("install", release.write(tmp_path), "--fingerprint", fingerprint, "--home", bed.home, "--service", "process", "--port", 0, *place)[
            "changed"
        ]
        assert run("upgrade", second.write(tmp_path), *place)["generation"] == second.generation
        assert run("rollback", *place)["generation"] == release.generation
        assert [entry["verb"] for entry in run("history", *place)] == ["install", "upgrade", "rollback"]
        assert run("status", *place)["current"] == release.generation == status(bed.site)["current"]
        assert not (ROOT / "site").exists()


def test_a_foreign_fingerprint_or_none_at_all_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    release = FakeRelease(1)
    for pin in (operations.Pin(), operations.Pin(first_fingerprint="0" * 64)):
        with pytest.raises(ApplianceError) as refused:
            settings = Settings(str(tmp_path / "home"))
            operations.install(tmp_path / "site", release.write(tmp_path), settings, operations.Wishes(pin))
        assert refused.value.code == "trust_invalid"
        assert not (tmp_path / "site").exists()
