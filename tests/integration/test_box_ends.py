"""The process of the box ends soon, with a message and without a child, whatever happens and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from appliance.home import Home
from appliance.testing.box_process import ROOT, box_process

pytestmark = pytest.mark.faults

END_SECONDS = 10.0
_START_SECONDS = 90.0
_LOOK_SECONDS = 0.02


@contextmanager
def _starting(folder: Path) -> Iterator[psutil.Popen]:
    """A box that starts; nobody waits until it is ready."""
    variables = {**os.environ, "APPLIANCE_HOME": str(folder)}
    command = [sys.executable, "-m", "services.allinone", "--port", "0"]
    process = psutil.Popen(command, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _until(condition: object, seconds: float = _START_SECONDS) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(_LOOK_SECONDS)


def _gone(children: list[psutil.Process]) -> bool:
    return not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def _names(process: psutil.Popen) -> set[str]:
    return {child.name() for child in process.children(recursive=True)}


@pytest.mark.parametrize("damaged", ["knowledge/knowledge.db", "nats/secrets.json", "box.db"])
def test_a_start_that_fails_ends_with_a_message(tmp_path: Path, damaged: str) -> None:
    """The event log's server and the workers run already when the knowledge base cannot be opened."""
    Home(tmp_path).create()
    (tmp_path / damaged).parent.mkdir(exist_ok=True)
    (tmp_path / damaged).write_bytes(b"not what it was\n" * 1024)

    with _starting(tmp_path) as process:
        children: set[psutil.Process] = set()
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            children |= set(process.children(recursive=True))
            time.sleep(_LOOK_SECONDS)
        status, said = process.poll(), process.stderr.read() if process.poll() is not None else ""

    assert status not in {None, 0}
    assert "error: " in said
    assert "hint: " in said
    _until(lambda: _gone(list(children)), END_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_the_start(tmp_path: Path, number: signal.Signals) -> None:
    """As soon as the event log's server is up; the next start finds nothing in its way."""
    with _starting(tmp_path) as process:
        _until(lambda: "nats-server" in _names(process))
        children = process.children(recursive=True)
        begun = time.monotonic()
        process.send_signal(number)
        status = process.wait(END_SECONDS)
        took = time.monotonic() - begun

    assert status == 0
    assert took < END_SECONDS
    _until(lambda: _gone(children), END_SECONDS)


def test_a_killed_box_takes_its_children_along_and_starts_again(tmp_path: Path) -> None:
    """SIGKILL: the server of the event log and the function workers go, and what they held is free."""
    with box_process(tmp_path) as box:
        process = psutil.Process(box.pid)
        children = process.children(recursive=True)
        assert {"nats-server"} <= {child.name() for child in children}
        assert len(children) > 1
        process.kill()
        _until(lambda: _gone(children), END_SECONDS)

    with box_process(tmp_path) as again:
        assert again.client().get("/readyz").json()["checks"]["event_log"]["ok"]
        process = psutil.Process(again.pid)
        children = process.children(recursive=True)
        process.terminate()
        psutil.wait_procs([process], END_SECONDS)
        _until(lambda: _gone(children), END_SECONDS)
