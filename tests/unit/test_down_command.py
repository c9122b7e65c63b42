"""``appliance down`` ends the box of the home and nothing else, whatever ``run/box.json`` says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from appliance.cli.up import down
from appliance.home import HOME_VARIABLE, Home, RunningBox, process_start_ticks
from appliance.kit.errors import ApplianceError

SERVE = "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX); print('up', flush=True); sys.stdin.read()"
STRANGER = 65534


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with its folders, named by $APPLIANCE_HOME."""
    made = Home(tmp_path / "home")
    before = os.umask(0o077)
    made.create()
    os.umask(before)
    monkeypatch.setenv(HOME_VARIABLE, str(made.path))
    return made


@contextmanager
def process(home: Home, *, locked: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the file ``locked`` and stands in run/box.json."""
    with subprocess.Popen([sys.executable, "-c", SERVE, str(locked)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        home.running_file.write_bytes(msgspec.json.encode(RunningBox(child.pid, process_start_ticks(child.pid) or 0, "http://127.0.0.1:1")))
        try:
            yield child
        finally:
            child.kill()


def test_the_box_of_the_home_is_stopped(home: Home) -> None:
    with process(home, locked=home.running_file.parent / "lock") as box:
        down()
        assert box.wait(5) == -15
    assert not home.running_file.exists()


def test_a_process_that_does_not_hold_the_home_is_never_signalled(home: Home, tmp_path: Path) -> None:
    (home.running_file.parent / "lock").touch()
    with process(home, locked=tmp_path / "other") as bystander:
        with pytest.raises(ApplianceError) as refused:
            down()
        assert refused.value.code == "conflict"
        assert bystander.poll() is None


@pytest.mark.parametrize("trick", ["hard link", "symbolic link"])
def test_root_signals_no_process_of_its_own_for_the_user_of_a_home(home: Home, tmp_path: Path, trick: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can signal processes of other users")
    held, lock = tmp_path / "held", home.running_file.parent / "lock"
    held.touch()
    (lock.hardlink_to if trick == "hard link" else lock.symlink_to)(held)  # the bystander has it open, as a system service has its log
    with process(home, locked=held) as bystander:
        for path in (home.path, *home.path.rglob("*")):
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        with pytest.raises(ApplianceError) as refused:
            down()
        assert refused.value.code == "conflict"
        assert bystander.poll() is None


def test_a_pipe_in_the_place_of_the_file_does_not_hold_anybody_up(home: Home) -> None:
    os.mkfifo(home.running_file)
    assert home.running() is None
