"""What a tool server, which has the box's user, finds beside what it was given."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from services.agents.mcp_stdio import ServerProcess

ETC = Path("/etc/login.defs")  # anything that no program needs


def read_by_a_server(file: Path, work: Path) -> bytes:
    """``cat`` started as servers are."""
    server = ServerProcess(("/bin/cat", str(file)), work, {}, 1 << 30)
    return subprocess.run(server.line, env=server.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False).stdout


def test_keys_under_etc_and_shared_memory_are_not_a_servers(tmp_path: Path) -> None:
    """``/etc/appliance`` holds keys of the box (docs/agents.md names one); the whole of ``/etc`` and ``/dev`` could be read."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "given").write_bytes(b"given")
    (tmp_path / "own.key").write_bytes(b"sk-own")
    assert read_by_a_server(work / "given", work) == b"given"
    if read_by_a_server(tmp_path / "own.key", work) == b"sk-own":
        pytest.skip("this kernel has no Landlock: reading is not restricted")
    shared = Path("/dev/shm") / f"appliance-test-{os.getpid()}"  # noqa: S108 - that it is shared is the point
    shared.write_bytes(b"sk-shared")
    try:
        assert read_by_a_server(shared, work) == b""
    finally:
        shared.unlink()
    assert ETC.read_bytes()
    assert read_by_a_server(ETC, work) == b""
    assert read_by_a_server(Path("/etc/passwd"), work), "names of users are needed by many"
