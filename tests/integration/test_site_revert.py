"""A release that does not come up is taken back by itself, and the data are whole; a site says so with exit status 61 and the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.bundle.site.health import HealthCheck
from appliance.bundle.site.inspection import history
from appliance.bundle.site.process_service import ProcessService
from appliance.bundle.site.records import read_state
from appliance.bundle.site.settle import settle
from appliance.kit.errors import ApplianceError
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import site_bed, until

SOON = HealthCheck(1.5)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("crash", "this release cannot start"), ("never-ready", "not ready after"), ("migration", "the migration failed")],
)
def test_a_release_that_fails_is_taken_back(tmp_path: Path, fault: str, reason: str) -> None:
    with site_bed(tmp_path) as bed:
        first = FakeRelease(1)
        bed.install(first)
        bed.write("kept")
        with pytest.raises(ApplianceError, match="1-.* runs again") as refused:
            bed.upgrade(FakeRelease(2, "0002", fault), check=SOON)
        assert refused.value.code == "upgrade_reverted"
        assert reason in refused.value.message
        assert bed.serving() == 1
        assert bed.notes() == ["kept"]
        assert bed.head() == "0001"
        assert bed.verbs() == ["install", "revert"]
        assert read_state(bed.site).sequence == 1, "a release that was never confirmed does not count against older ones"
        bed.upgrade(FakeRelease(3, "0002"))
        assert bed.serving() == 3


def test_data_that_a_failed_release_has_migrated_are_put_back_when_it_has_no_way_back(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        bed.write("kept")
        broken = FakeRelease(2, "0002", "never-ready")
        broken.extra["app/services/allinone/schemas.py"] = b"raise SystemExit('cannot be imported')\n"
        with pytest.raises(ApplianceError) as refused:
            bed.upgrade(broken, check=SOON)
        assert "the copy from before the upgrade was put back" in refused.value.hint
        assert bed.serving() == 1
        assert bed.notes() == ["kept"]
        assert list((bed.home / "upgrade-copies").glob("*/set-aside/*/box.db")), "what the failed release wrote is set aside, not lost"


def test_a_check_that_fails_takes_the_upgrade_back(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        with pytest.raises(ApplianceError, match="ended with 7: no citations") as refused:
            bed.upgrade(FakeRelease(2), check=HealthCheck(8, "sh -c 'echo no citations; exit 7'"))
        assert refused.value.code == "upgrade_reverted"
        assert bed.serving() == 1


def test_a_box_that_ignores_sigterm_is_stopped_all_the_same(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1, fault="late"), service="none")
        service = ProcessService(bed.settings, bed.site.path, stop_seconds=0.5)
        service.start()
        until(lambda: bed.serving() == 1, "the box answers")
        service.stop()
        assert bed.serving() is None
        assert not service.is_running()


def test_a_first_release_that_fails_says_why_and_can_be_repeated(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        with pytest.raises(ApplianceError, match="this release cannot start") as refused:
            bed.install(FakeRelease(1, fault="crash"))
        assert refused.value.code == "install_failed"
        assert bed.install(FakeRelease(2)).verb == "install"
        assert bed.serving() == 2


def test_an_unconfirmed_release_that_nobody_watches_is_left_at_the_next_start(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        bed.run_killed("upgrade", FakeRelease(2).write(tmp_path), at="switch: wait", who="guard")
        assert settle(bed.site).sequence == 1
        assert settle(bed.site).sequence == 1, "settling again changes nothing"
        current = bed.site.current()
        assert current is not None
        assert current.sequence == 1


def test_a_copy_that_cannot_be_made_refuses_the_upgrade_before_the_new_release_runs(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        (bed.home / "upgrade-copies").write_text("a file where the folder must be\n")
        with pytest.raises(ApplianceError, match="before the start of") as refused:
            bed.upgrade(FakeRelease(2, "0002"))
        assert refused.value.code == "upgrade_reverted"
        assert bed.serving() == 1
        assert bed.head() == "0001"
        assert history(bed.site)[-1]["detail"]["data"] == "nothing was changed"
