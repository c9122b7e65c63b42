"""Processes of local models that are held up for ever, and boxes that do not see each other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from services.llm.llama.socket_folder import SocketFolder, sweep


def test_a_box_in_another_pid_namespace_keeps_its_socket_and_one_that_died_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    of_a_box = SocketFolder.make()
    renamed = of_a_box.path.rename(tmp_path / "appliance-llm-999999999-abc")  # no such process here
    foreign = tmp_path / "appliance-llm-888888888-abc"
    foreign.mkdir()
    os.mkfifo(foreign / "lock")
    sweep()
    assert renamed.exists()
    os.close(of_a_box._held)  # what the kernel does when it is killed
    sweep()
    assert not renamed.exists()
    alive = SocketFolder.make()
    alive.remove()
    assert not alive.path.exists()
