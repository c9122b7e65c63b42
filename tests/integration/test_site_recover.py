"""What an operator tries first: start the box again, and go back once more."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from appliance.bundle.site import operations
from appliance.bundle.site.process_service import start_ticks
from appliance.bundle.site.records import Settings
from appliance.kit.errors import ApplianceError
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import site_bed, until


def test_recover_starts_a_box_that_died(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        running = json.loads((bed.home / "run/box.json").read_text())
        os.kill(running["pid"], signal.SIGKILL)
        until(lambda: start_ticks(running["pid"]) is None, "the box is dead")
        assert operations.recover(tmp_path / "site").changed
        assert bed.serving() == 1
        assert not operations.recover(tmp_path / "site").changed


def test_a_second_rollback_never_leads_forward_again(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1), service="none")
        bed.upgrade(FakeRelease(2))
        bed.upgrade(FakeRelease(3))
        assert bed.rollback().generation.startswith("2-")
        assert bed.rollback().generation.startswith("1-")
        with pytest.raises(ApplianceError, match="no generation to go back to"):
            bed.rollback()


def test_a_user_that_does_not_exist_is_told_before_anything_is_written(tmp_path: Path) -> None:
    release = FakeRelease(1)
    with site_bed(tmp_path) as bed, pytest.raises(ApplianceError, match="nobody-here"):
        operations.install(
            tmp_path / "site", release.write(tmp_path), Settings(str(bed.home), user="nobody-here"), bed.wishes(release)
        )
    assert not (tmp_path / "site").exists()
