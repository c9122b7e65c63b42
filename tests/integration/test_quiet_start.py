"""The box asks nobody but its own event log when it starts: no name is resolved, nothing leaves loopback, so dropped packets cannot delay it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from appliance.home import Home
from appliance.testing.box_process import ROOT

CALLS = "connect,sendto,sendmsg,sendmmsg"
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_start_sends_nothing_anywhere(tmp_path: Path) -> None:
    home, trace = Home(tmp_path / "home"), tmp_path / "trace"
    environment = {**os.environ, "APPLIANCE_HOME": str(home.path)}
    line = ["strace", "-f", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(trace), sys.executable, "-m", "services.allinone", "--port", "0"]
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        ends_at = time.monotonic() + 60
        while (running := home.running()) is None:
            if process.poll() is not None and process.stderr is not None and "ptrace" in process.stderr.read():
                pytest.skip("strace may not trace here")
            assert process.poll() is None
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        httpx.get(f"{running.url}/readyz", timeout=30, trust_env=False).raise_for_status()
        os.kill(running.pid, signal.SIGTERM)
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert [row for row in trace.read_text().splitlines() if "AF_INET" in row and not LOOPBACK.search(row)] == []
