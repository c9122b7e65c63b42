"""The Python environment of the next generation: taken over by hard links when nothing differs, made anew when anything does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.bundle.site import environment
from appliance.bundle.site.layout import Generation
from appliance.bundle.site.operations import Surroundings
from appliance.bundle.site.packages import LIST, PATH_FILE, origin_of, write_list
from appliance.kit.errors import ApplianceError
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import SiteBed, site_bed

MODULE = "demo/thing.py"
SCRIPT = "demo-tool"
PROGRAM = "demo-server"


@pytest.fixture
def bed(tmp_path: Path):
    """A site with release 1, which has a package and a script."""
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1), service="none")
        give_package(Generation(bed.site.generations / FakeRelease(1).generation))
        yield bed


def give_package(generation: Generation) -> None:
    """What pip would leave: a module, and a script with the path of its interpreter."""
    venv = generation.path / "venv"
    module = packages(generation) / MODULE
    module.parent.mkdir()
    module.write_text("COLOUR = 'green'\n")
    (venv / "bin" / SCRIPT).write_text(f"#!{generation.python}\nfrom demo.thing import COLOUR\nprint(COLOUR)\n")
    (venv / "bin" / SCRIPT).chmod(0o755)
    (venv / "bin" / PROGRAM).write_bytes(b"\x7fELF" + bytes(3 * 2**20))  # as nats-server: longer than any script
    (venv / "bin" / PROGRAM).chmod(0o755)
    write_list(generation, origin_of(generation, environment.base_python()))


def packages(generation: Generation) -> Path:
    (found,) = (generation.path / "venv/lib").glob("python3*/site-packages")
    return found


def upgrade(bed: SiteBed, release: FakeRelease) -> tuple[Generation, list[str]]:
    """The new generation, and the steps and words of the command."""
    told: list[str] = []
    bed.upgrade(release, around=Surroundings(say=told.append, observe=told.append))
    return Generation(bed.site.generations / release.generation), told


def old(bed: SiteBed) -> Generation:
    return Generation(bed.site.generations / FakeRelease(1).generation)


def test_equal_packages_are_the_same_files_and_scripts_name_the_new_interpreter(bed: SiteBed) -> None:
    (packages(old(bed)) / "sitecustomize.py").write_text("planted after the installation\n")
    new, told = upgrade(bed, FakeRelease(2))
    assert "linked" in told
    assert (packages(new) / MODULE).samefile(packages(old(bed)) / MODULE)
    assert (packages(new) / MODULE).stat().st_mode & 0o222 == 0
    assert not (packages(new) / "sitecustomize.py").exists()
    assert (new.path / "venv/bin" / PROGRAM).samefile(old(bed).path / "venv/bin" / PROGRAM)
    assert os.access(new.path / "venv/bin" / PROGRAM, os.X_OK)
    assert (packages(new) / PATH_FILE).read_text() == f"{new.path}/app\n"
    said = subprocess.run([new.path / "venv/bin" / SCRIPT], capture_output=True, text=True, check=True)
    assert said.stdout == "green\n"
    holds_old = [path for path in (new.path / "venv").rglob("*") if path.is_file() and os.fsencode(f"{old(bed).path}/") in path.read_bytes()]
    assert not holds_old, "nothing in the new environment leads into the old generation"
    newer, told = upgrade(bed, FakeRelease(3))
    shutil.rmtree(old(bed).path)
    assert "linked" in told, "what was taken over can be taken over again"
    assert (packages(newer) / MODULE).read_text() == "COLOUR = 'green'\n"


@pytest.mark.parametrize("damage", ["content", "same size", "gone", "link", "writable", "script"])
def test_a_file_that_was_altered_is_not_carried_over(bed: SiteBed, tmp_path: Path, damage: str) -> None:
    file = old(bed).path / "venv/bin" / SCRIPT if damage == "script" else packages(old(bed)) / MODULE
    data = file.read_bytes()
    file.chmod(0o644)
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
    if damage in {"gone", "link"}:
        file.unlink()
    if damage == "link":
        file.symlink_to(tmp_path / "elsewhere")
    if damage in {"content", "same size", "script"}:
        file.write_bytes(data.replace(b"green", b"wrong").replace(b"COLOUR", b"COLOVR") + (b"x" if damage == "content" else b""))
        file.chmod(0o444)
    new, told = upgrade(bed, FakeRelease(2))
    assert "linked" not in told
    assert any("is not what was installed" in line for line in told)
    assert not (packages(new) / "demo").exists(), "made anew from its own wheels, of which this release has none"
    assert not (new.path / "venv/bin" / SCRIPT).exists()
    assert new.is_complete
    assert bed.site.current() == new


@pytest.mark.parametrize("what", ["wheel", "interpreter"])
def test_another_wheel_or_interpreter_makes_the_environment_anew(bed: SiteBed, what: str) -> None:
    if what == "interpreter":
        path = old(bed).path / LIST
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b'"python_version":"3', b'"python_version":"2'))
    wheels = {"wheelhouse/demo-2-py3-none-any.whl": b"another wheel"} if what == "wheel" else {}
    new, told = upgrade(bed, FakeRelease(2, extra=wheels))
    assert "link" not in told
    assert not (packages(new) / "demo").exists()


def test_another_lock_makes_the_environment_anew(bed: SiteBed) -> None:
    release = FakeRelease(2, extra={"app/requirements/runtime.lock": b"demo==2\n"})
    with pytest.raises(ApplianceError, match="the wheelhouse has no pip"):
        upgrade(bed, release)  # so pip was asked for, and nothing was taken over
    assert not list(bed.site.generations.glob("2-*/venv/**/demo"))
    assert bed.site.current() == old(bed)


@pytest.mark.parametrize("text", ["", "[]\n", '{"files":["x"],"schema_version":1}\n', "outside"])
def test_a_list_that_cannot_be_used_is_no_donor(bed: SiteBed, text: str) -> None:
    path = old(bed).path / LIST
    if text == "outside":
        document = json.loads(path.read_bytes())
        text = json.dumps({**document, "files": ["0" * 64 + " 1 ../../../../etc/passwd"]}, sort_keys=True, separators=(",", ":")) + "\n"
    path.chmod(0o644)
    path.write_text(text)
    new, told = upgrade(bed, FakeRelease(2))
    assert "link" not in told
    assert new.is_complete


@pytest.mark.parametrize("step", ["link", "linked"])
def test_sigkill_while_linking_leaves_the_old_box_and_the_same_command_finishes(bed: SiteBed, tmp_path: Path, step: str) -> None:
    release = FakeRelease(2)
    bed.run_killed("upgrade", release.write(tmp_path), at=step, who="command")
    new = Generation(bed.site.generations / release.generation)
    assert not new.is_complete
    assert bed.site.current() == old(bed)
    if step == "linked":  # killed in the midst of it: some files are there, some are not
        (packages(new) / MODULE).unlink()
        (new.path / LIST).unlink()
        (packages(new) / "half.py").write_text("left behind\n")
    again, told = upgrade(bed, release)
    assert "linked" in told
    assert (packages(again) / MODULE).samefile(packages(old(bed)) / MODULE)
    assert not (packages(again) / "half.py").exists()
    assert bed.site.current() == again
