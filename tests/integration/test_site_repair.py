"""A generation that is not what was installed any more never comes to run unseen, and its bundle repairs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.bundle.site.environment import make_environment
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
