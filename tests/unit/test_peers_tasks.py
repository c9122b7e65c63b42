"""Yardsticks of the task benchmark: figures come from what a script printed, a peer that cannot be run is named, nothing is left running."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

from bench import peers_tasks
from bench.peer_scripts import run_script

RESTATE_LINES = [
    {"bench": "restate", "conc": 1, "wf_s": 46.4, "wf_p50_ms": 21.2, "loadavg": 0.1},
    {"bench": "restate", "conc": 64, "wf_s": 190.1, "wf_p50_ms": 336.4, "loadavg": 0.2},
]


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "peers"
    folder.mkdir()
    monkeypatch.setenv("APPLIANCE_PEERS", str(folder))
    monkeypatch.setenv("APPLIANCE_PEERS_PYTHON", sys.executable)
    monkeypatch.setenv("RESTATE_SERVER", "/bin/true")
    return folder


def prints(lines: list[dict], then: str = "") -> str:
    return "\n".join([f"print({json.dumps(line)!r}, flush=True)" for line in lines] + [then])


def test_figures_are_those_that_the_script_printed(peers: Path) -> None:
    (peers / "bench_restate.py").write_text("print('a server talks too')\n" + prints(RESTATE_LINES))
    measured = peers_tasks.restate(1)
    assert measured == peers_tasks.Workflows("Restate", per_second=190.1, alone_p50_ms=21.2, load=0.2, reason=None)
    assert [row.value for row in measured.rows()] == [190.1, 21.2, 0.2]


def test_a_script_that_fails_half_way_gives_what_it_printed_and_the_reason(peers: Path) -> None:
    (peers / "bench_restate.py").write_text(prints(RESTATE_LINES[:1], "raise OSError('disk full')"))
    measured = peers_tasks.restate(1)
    assert (measured.per_second, measured.alone_p50_ms) == (None, 21.2)
    assert measured.reason == "exit status 1: OSError: disk full"


def test_a_figure_that_was_not_printed_is_missing_and_never_invented(peers: Path) -> None:
    (peers / "bench_restate.py").write_text(prints(RESTATE_LINES[:1]))
    measured = peers_tasks.restate(1)
    assert measured.per_second is None
    assert "did not print" in measured.reason


def test_a_recovery_that_the_script_calls_failed_carries_its_words(peers: Path) -> None:
    failed = {"bench": "recovery", "peer": "restate", "n": 5, "failed": "timeout waiting for 5 x s3: 4"}
    (peers / "bench_recovery.py").write_text(prints([failed]))
    assert peers_tasks.recovery("restate", 5).reason == "timeout waiting for 5 x s3: 4"


def test_a_peer_that_is_not_installed_is_named_with_what_would_help(peers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "APPLIANCE_PEERS names its folder" in peers_tasks.dbos(1).reason
    (peers / "bench_dbos.py").write_text("")
    monkeypatch.setenv("APPLIANCE_PEERS_PYTHON", "/nowhere/python")
    assert "scripts/setup_peers.sh builds it" in peers_tasks.dbos(1).reason


def test_a_script_past_its_limit_is_stopped_with_every_server_it_started(peers: Path) -> None:
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    line = "print(json.dumps({'pid': server.pid}), flush=True)"
    (peers / "bench_hangs.py").write_text(f"import json, subprocess, sys, time\nserver = {sleeper}\n{line}\ntime.sleep(600)\n")
    run = run_script("bench_hangs.py", [], limit_seconds=3, folder=None)
    assert run.reason == "did not end within 3 s"
    pid = run.lines[0]["pid"]
    assert psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)[1] == []


def test_what_was_not_measured_is_said_aloud_and_in_the_json_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    measured = [peers_tasks.Workflows("Restate", 190.0, 21.0), peers_tasks.Recovery("DBOS on PostgreSQL", 500, reason="no server")]
    peers_tasks.report_missing(measured, out)
    assert capsys.readouterr().err == "not measured: DBOS on PostgreSQL: no server\n"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["bench"], line["metric"], line["value"]) for line in lines] == [("tasks DBOS on PostgreSQL", "not measured: no server", None)]
