"""Closed networks for real: a recorder that catches its canary, a box that is quiet, and one with a planted endpoint that is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.kit.errors import ApplianceError
from appliance.proof.canary import RESOLVER_ADDRESS
from appliance.proof.chamber import check_namespaces
from appliance.proof.envelope import sign_report, write_report
from appliance.proof.plan import Phase, Plan
from appliance.proof.prove_airgap import prove_one
from appliance.proof.report import control_holds, is_silent
from appliance.proof.tools import SEARCH_PATH, Tools, find_tools
from appliance.testing.box_process import ROOT, _give_models
from tests.unit.proof_samples import KEY_SEED, mode_entry, report

PYTHON = sys.executable


@pytest.fixture(scope="module")
def tools() -> Tools:
    try:
        found = find_tools()
        check_namespaces(found)
    except ApplianceError as error:
        pytest.skip(f"the proof cannot run here: {error.message}; {error.hint}")
    return found


def plan(folder: Path, mode: str, *phases: Phase, home: Path | None = None) -> Plan:
    variables = {"PATH": SEARCH_PATH, "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "APPLIANCE_HOME": str(home or folder)}
    return Plan(mode, str(folder), phases, variables, start_home=str(home or ""))


@pytest.mark.parametrize("mode", ["no-route", "refuse", "drop"])
def test_a_quiet_process_is_silent_and_the_canary_is_caught(tmp_path: Path, tools: Tools, mode: str) -> None:
    before = Path("/proc/self/net/dev").read_text().count("\n")
    talk = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); socket.getaddrinfo('localhost', 1)"
    )
    entry = prove_one(plan(tmp_path, mode, Phase("tiny", (PYTHON, "-c", talk))), tools)
    assert entry["phases"][0]["ok"], entry["phases"]
    assert entry["attempts"] == []
    assert is_silent(entry)
    assert control_holds(mode, entry["control"]), entry["control"]
    assert ["inet", RESOLVER_ADDRESS, 53] in entry["control"]["caught"]  # what getaddrinfo asked
    assert Path("/proc/self/net/dev").read_text().count("\n") == before  # nothing of the chamber is left outside
    assert not [name for name in os.listdir("/proc") if name.isdigit() and str(tmp_path) in _command_line(name)]


def test_whoever_reaches_out_is_caught_even_from_a_process_that_left(tmp_path: Path, tools: Tools) -> None:
    talk = (
        "import os, socket\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        socket.socket().connect_ex(('192.0.2.9', 8443))\n"
        "        try: socket.getaddrinfo('telemetry.example', 443)\n"
        "        except OSError: pass\n"
        "    os._exit(0)\n"
        "os.wait()"
    )  # fmt: skip
    entry = prove_one(
        plan(tmp_path, "refuse", Phase("talk", (PYTHON, "-c", talk)), Phase("wait", (PYTHON, "-c", "import time; time.sleep(0.5)"))), tools
    )
    assert {(attempt["family"], attempt["address"], attempt["port"]) for attempt in entry["attempts"]} == {
        ("inet", "192.0.2.9", 8443),
        ("inet", RESOLVER_ADDRESS, 53),
    }
    assert entry["counters"]["journey"]["leaving_packets"] >= 2
    assert entry["control"]["holds"]
    assert report(entry)["verdict"] == "egress"


def test_a_link_in_the_folder_of_the_box_does_not_hide_a_daemon_of_the_host(tmp_path: Path, tools: Tools) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "daemon"))
        daemon.listen()
        box = tmp_path / "box"
        box.mkdir()
        (box / "link").symlink_to(tmp_path / "daemon")
        talk = f"import socket; socket.socket(socket.AF_UNIX).connect({str(box / 'link')!r})"
        entry = prove_one(plan(box, "no-route", Phase("talk", (PYTHON, "-c", talk))), tools)
    assert entry["phases"][0]["ok"], entry["phases"]
    assert [(attempt["family"], attempt["address"]) for attempt in entry["attempts"]] == [("unix", str(box / "link"))]
    assert report(entry)["verdict"] == "egress"


UNTRACED = """
import ctypes, os, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
child = libc.syscall(ctypes.c_long(number), ctypes.c_long(0x00800000 | signal.SIGCHLD), None, None, None, None)
if child == 0:
    socket.socket().connect_ex(("192.0.2.77", 443))
    os._exit(0)
assert (child, ctypes.get_errno()) == (-1, 1), (child, ctypes.get_errno())
arguments = (ctypes.c_uint64 * 8)(0x00800000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
child = libc.syscall(ctypes.c_long(435), arguments, ctypes.c_long(64))
if child == 0:
    os._exit(0)
assert (child, ctypes.get_errno()) == (-1, 38), (child, ctypes.get_errno())
"""


def test_nobody_makes_a_process_that_the_recorder_does_not_follow(tmp_path: Path, tools: Tools) -> None:
    entry = prove_one(plan(tmp_path, "no-route", Phase("untraced", (PYTHON, "-c", UNTRACED))), tools)
    assert entry["phases"][0]["ok"], entry["phases"]
    assert entry["control"]["untraced_denied"]
    assert entry["control"]["holds"]


@pytest.mark.slow
def test_a_box_with_a_planted_endpoint_is_found_out(tmp_path: Path, tools: Tools) -> None:
    home = tmp_path / "home"
    _give_models(home)
    subprocess.run([PYTHON, "-m", "appliance.hub.setup", "--quiet-when-done"], check=True, cwd=ROOT, env={**os.environ, "APPLIANCE_HOME": str(home)})
    (home / "models.toml").write_text('schema_version = 1\n[llm.default]\nendpoint = "http://192.0.2.7:8000/v1"\nmodel = "x"\nlicense = "MIT"\n')
    tool = (PYTHON, "-m", "appliance.cli.main")
    entry = prove_one(
        plan(
            tmp_path, "refuse", Phase("up", (*tool, "up", "--detach", "--port", "0")), Phase("chat", (*tool, "chat", "hello")), Phase("stop", (*tool, "down")), home=home
        ),
        tools,
    )  # fmt: skip
    assert [phase["name"] for phase in entry["phases"] if phase["ok"]] == ["up", "stop"], entry["phases"]
    assert ("192.0.2.7", 8000) in {(attempt["address"], attempt["port"]) for attempt in entry["attempts"]}
    assert entry["control"]["holds"]
    assert report(entry)["verdict"] == "egress"
    shutil.rmtree(home)


@pytest.mark.parametrize(("made", "status"), [("sealed", 0), ("egress", 63), ("altered", 49)])
def test_verify_has_an_exit_status_for_every_ending(tmp_path: Path, made: str, status: int) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from appliance.audit.signing import public_pem

    key = Ed25519PrivateKey.from_private_bytes(KEY_SEED)
    modes = {
        "egress": [mode_entry("no-route"), mode_entry("refuse", journey=1), mode_entry("drop")],
    }.get(made, [])
    data = sign_report(report(*modes), key)
    write_report(tmp_path / "proof.json", data[:-40] + b"A" + data[-39:] if made == "altered" else data)
    (tmp_path / "key.pem").write_bytes(public_pem(key.public_key()))
    command = [
        PYTHON,
        "-m",
        "appliance.cli.main",
        "proof",
        "verify",
        str(tmp_path / "proof.json"),
        "--public-key",
        str(tmp_path / "key.pem"),
        "--json",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    assert ("hint:" in ended.stderr) == (status != 0)
    assert ('"attempts": 0' in ended.stdout) == (made != "altered")


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
