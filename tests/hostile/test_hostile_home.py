"""Root works for a home that its user has prepared: no link, pipe or record in it leads root to other files or other people's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from appliance.bundle.site.process_service import ProcessService, read_running, start_ticks
from appliance.bundle.site.records import Settings

NOBODY = 65534
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have a home of another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the other user can reach, which those of pytest are not."""
    before = os.umask(0o022)  # another test of this process may have made it the box's own
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
    os.umask(before)


@pytest.fixture
def service(place: Path) -> Iterator[ProcessService]:
    """A home of somebody else, and a site of ours whose box says one line."""
    home, command = place / "home", place / "site/current/bin/appliance"
    home.mkdir()
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\necho hello from the box\nexit 3\n")
    command.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    service = ProcessService(Settings(str(home), user="nobody" if os.geteuid() == 0 else "", service="process"), place / "site", stop_seconds=0.5)
    yield service
    service.stop()


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no box."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


def _name(home: Path, pid: int) -> None:
    (home / "run").mkdir(exist_ok=True)
    (home / "run/box.json").write_text(json.dumps({"pid": pid, "started_ticks": start_ticks(pid), "url": "http://127.0.0.1:1"}))


@NEEDS_ROOT
def test_a_process_of_another_user_that_the_home_names_is_not_signalled(service: ProcessService, victim: subprocess.Popen[bytes], place: Path) -> None:
    _name(place / "home", victim.pid)
    assert not service.is_running()
    service.stop()
    assert victim.poll() is None


def test_a_process_that_does_not_hold_the_lock_of_the_home_is_no_box_of_it(tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    _name(home, victim.pid)
    service = ProcessService(Settings(str(home), service="process"), tmp_path, stop_seconds=0.5)
    assert service.is_running()
    (home / "run/lock").touch()
    assert not service.is_running()
    service.stop()
    assert victim.poll() is None


def test_a_process_of_the_owner_that_holds_the_lock_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/lock").open("w") as lock:
        box = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fileno(),))
    _name(tmp_path, box.pid)
    ProcessService(Settings(str(tmp_path), service="process"), tmp_path, stop_seconds=5).stop()
    assert box.wait(5) == -signal.SIGTERM


@NEEDS_ROOT
def test_a_link_in_place_of_the_logs_leads_root_nowhere(service: ProcessService, place: Path) -> None:
    secrets = place / "of-root"
    secrets.mkdir()
    secret = secrets / "box.err"
    secret.write_text("secret of root\n")
    secret.chmod(0o600)
    (place / "home/logs").symlink_to(secrets)
    assert service.last_words() == ""
    service.start()
    assert service._process is not None
    assert service._process.wait(10) == 3
    assert service.last_words() == "hello from the box"
    assert secret.read_text() == "secret of root\n"
    assert (secret.stat().st_uid, secrets.stat().st_uid) == (0, 0)
    assert (place / "site/box.err").stat().st_uid == 0


def test_a_pipe_in_place_of_a_record_or_a_log_keeps_nobody_waiting(service: ProcessService, place: Path) -> None:
    home = place / "home"
    for folder in (home / "logs", home / "run"):
        folder.mkdir()
    for pipe in (home / "logs/box.err", home / "run/box.json", place / "site/box.err"):
        os.mkfifo(pipe)
    writer = os.open(home / "run/box.json", os.O_RDWR)
    try:
        assert read_running(home) == {}
        assert service.last_words() == ""
        assert not service.is_running()
    finally:
        os.close(writer)
