"""What the shell sees of ``appliance``: lines and statuses, never a traceback. Each command is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def appliance(home: Path, *arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "APPLIANCE_HOME": str(home), "COLUMNS": "80"}
    command = [sys.executable, "-m", "appliance.cli.main", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False, input=options.get("typed", ""))
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    "arguments",
    [("foo",), ("chat", "hi", "--bogus"), ("docs", "show"), ("up", "--port", "abc"), ("up", "--port", "70000"), ("docs", "nothing")],
)
def test_a_misused_command_line_gets_an_error_a_hint_and_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = appliance(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "hint: see " in done.stderr
    assert "--help" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("noun", [(), ("docs",), ("users",), ("audit",)])
def test_a_group_without_a_command_shows_its_help(tmp_path: Path, noun: tuple[str, ...]) -> None:
    done = appliance(tmp_path, *noun)
    assert done.returncode in {0, 2}
    assert "Usage:" in done.stdout + done.stderr
    assert "error:" not in done.stderr


def test_a_question_without_an_answer_changes_nothing(tmp_path: Path) -> None:
    done = appliance(tmp_path, "spaces", "remove", "legal", typed="n\n")
    assert done.returncode in {1, 35}
    assert "error:" in done.stderr or "nothing was changed" in done.stderr


def test_a_command_for_a_box_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    done = appliance(tmp_path, "docs", "list")
    assert done.returncode == 40
    assert "hint: start it with: appliance up" in done.stderr


def test_a_port_that_is_taken_is_the_error_itself(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = appliance(tmp_path / "home", "up", "--detach", "--port", str(other.getsockname()[1]))
    assert done.returncode == 40
    assert "error: cannot listen on 127.0.0.1" in done.stderr
    assert "PORT=" in done.stderr


def test_a_home_with_a_space_in_its_name_from_start_to_stop(tmp_path: Path) -> None:
    home = tmp_path / ("a rather long name of a folder " * 4).strip() / "home"
    started = appliance(home, "up", "--detach", "--port", "0")
    try:
        assert started.returncode == 0, started.stderr
        assert f"cat '{home}/admin.password'" in started.stderr
        assert "warning: encoder is degraded" in started.stderr  # no model was set up
        again = appliance(home, "up", "--port", "1")
        assert again.returncode == 0
        assert "warning: ignored: --port 1" in again.stderr
        status = appliance(home, "status", "--json")
        assert status.returncode == 0
        assert json.loads(status.stdout)["checks"]["encoder"]["detail"].startswith("degraded")
        assert "warning: encoder" in status.stderr
    finally:
        assert appliance(home, "down").returncode == 0
    loose = [path for path in home.rglob("*") if path.stat().st_mode & 0o077 and ".pub." not in path.name]
    assert not loose
    (home / "keys" / "audit.key.pem").unlink()
    refused = appliance(home, "up", "--detach", "--port", "0")
    assert refused.returncode == 34
    assert "error: the audit key is missing" in refused.stderr
    assert "restore keys/ from a backup" in refused.stderr


def test_a_box_in_front_warns_of_what_is_degraded_and_stops_at_a_signal(tmp_path: Path) -> None:
    environment = {**os.environ, "APPLIANCE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "appliance.cli.main", "up", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("warning: encoder is degraded"):
                break
        assert any("The box is ready" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
