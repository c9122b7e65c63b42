"""SIGKILL at every step of an upgrade and of a rollback, for the command and for the guard that carries the switch through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from appliance.bundle.site import operations
from appliance.bundle.site.process_service import ProcessService
from appliance.bundle.site.settle import settle
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import SiteBed, both_halves, in_order, site_bed, until

COMMAND = ["verify", "unpack", "environment", "link", "linked", "complete", "settings", "pending", "guard", "prune"]
GUARD = [
    "switch: restart", "settle: count the attempt", "settle: copy the databases", "settle: switch", "switch: wait",
    "confirm: history", "confirm: root of trust", "confirm: state", "confirm: end",
]  # fmt: skip
BACK = ["switch: restart", "settle: take the tables back", "settle: switch", "settle: mark as applied", "switch: wait", "confirm: history", "confirm: state", "confirm: end"]


def test_the_lists_of_steps_are_complete(tmp_path: Path) -> None:
    with site_bed(tmp_path) as bed:
        bed.install(FakeRelease(1))
        steps = bed.run_killed("upgrade", FakeRelease(2, "0002").write(tmp_path), at="", who="command")
        assert [step for step in steps if step.startswith("command")] == [f"command: {step}" for step in COMMAND]
        assert [step for step in steps if step.startswith("guard")] == [f"guard: {step}" for step in GUARD]
        steps = bed.run_killed("rollback", None, at="", who="command")
        assert [step for step in steps if step.startswith("guard")] == [f"guard: {step}" for step in BACK]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes for two sites."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
def test_a_command_killed_at_any_step_leaves_a_working_box_and_finishes_when_given_again(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    both_halves(pool, tmp_path, COMMAND, _kill_commands)


@pytest.mark.slow
def test_a_guard_killed_at_any_step_leaves_a_box_that_starts_and_the_command_finishes_when_given_again(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    both_halves(pool, tmp_path, GUARD, _kill_guards)


@pytest.mark.slow
def test_a_guard_killed_at_any_step_of_a_rollback_loses_nothing(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    both_halves(pool, tmp_path, BACK, _kill_guards_on_the_way_back)


def _kill_commands(bed: SiteBed, steps: Sequence[str]) -> None:
    bed.install(FakeRelease(1))
    for number, step in enumerate(steps, 2):
        release = FakeRelease(number, f"{number:04d}")
        bed.run_killed("upgrade", release.write(bed.folder), at=step, who="command")
        in_order(bed)
        assert bed.serving() in {number - 1, number}, f"no box after a kill before {step!r}"
        bed.write(f"after {step}")
        _finish(bed, release, step)
    assert bed.notes() == [f"after {step}" for step in steps]


def _kill_guards(bed: SiteBed, steps: Sequence[str]) -> None:
    bed.install(FakeRelease(1))
    for number, step in enumerate(steps, 2):
        bed.write(f"before {step}")
        release = FakeRelease(number, f"{number:04d}")
        bed.run_killed("upgrade", release.write(bed.folder), at=step, who="guard")
        in_order(bed)
        _reboot(bed)
        confirmed = step == "confirm: end"  # history and state have it; else nobody has confirmed the new one, and the old box must run
        assert bed.serving() == (number if confirmed else number - 1), f"after a kill before {step!r}"
        _finish(bed, release, step)
    assert bed.notes() == [f"before {step}" for step in steps]


def _kill_guards_on_the_way_back(bed: SiteBed, steps: Sequence[str]) -> None:
    bed.install(FakeRelease(1))
    for step in steps:
        bed.upgrade(FakeRelease(2, "0002"), reason="x") if bed.serving() == 1 else None
        bed.write(f"before {step}")
        bed.run_killed("rollback", None, at=step, who="guard")
        in_order(bed)
        _reboot(bed)
        assert bed.serving() == 1, f"after a kill before {step!r}"
        operations.recover(bed.folder / "site")
        assert bed.serving() == 1
        assert bed.verbs()[-1] == "rollback", step
        assert bed.head() == "0001"
    assert bed.notes() == [f"before {step}" for step in steps]


def _reboot(bed: SiteBed) -> None:
    """What systemd does at boot: settle, then start."""
    bed.stop()
    service = ProcessService(bed.settings, bed.site.path)
    service.restart(lambda: settle(bed.site))
    until(lambda: bed.serving() is not None or bool(service.failure()), "the box answers")


def _finish(bed: SiteBed, release: FakeRelease, step: str) -> None:
    bed.upgrade(release)
    assert bed.serving() == release.release, f"given again after a kill before {step!r}"
    in_order(bed)
    assert bed.head() == release.head
    assert not bed.site.pending_file.exists()
