"""What a tool server, which has the box's user, finds beside what it was given."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.agents.mcp_launcher import NO_ISOLATION
from services.agents.mcp_stdio import ServerProcess, stdio_transport

ETC = Path("/etc/login.defs")  # anything that no program needs


OLD_KERNEL = """
import ctypes, os, struct, sys
rules = ((0x20, 0, 0, 0), (0x15, 0, 1, 444), (6, 0, 0, 0x50000 | 38), (6, 0, 0, 0x7FFF0000))  # landlock_create_ruleset: ENOSYS
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""  # BPF of <linux/filter.h>; the number is the same on every architecture


class OnAnOldKernel(ServerProcess):
    """Started where the kernel knows nothing of Landlock."""

    @property
    def line(self) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", OLD_KERNEL, *super().line]


async def test_without_landlock_a_server_is_refused_and_health_learns_why(tmp_path: Path) -> None:
    """It has the box's user: it could read the signing key."""
    (tmp_path / "own.key").write_bytes(b"sk-own")
    why: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with stdio_transport(OnAnOldKernel(("/bin/cat", str(tmp_path / "own.key")), tmp_path, {}, 1 << 30), why.set_result):
        assert "say unconfined = true" in await asyncio.wait_for(why, 60)


@pytest.mark.parametrize("unconfined", [False, True])
def test_without_landlock_only_the_operator_lets_a_server_start(tmp_path: Path, *, unconfined: bool) -> None:
    (tmp_path / "own.key").write_bytes(b"sk-own")
    server = OnAnOldKernel(("/bin/cat", str(tmp_path / "own.key")), tmp_path, {}, 1 << 30, unconfined=unconfined)
    ended = subprocess.run(server.line, env=server.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == ((0, b"sk-own") if unconfined else (NO_ISOLATION, b""))


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
    if not (given := read_by_a_server(work / "given", work)):
        pytest.skip("this kernel has no Landlock: no server is started")
    assert given == b"given"
    assert read_by_a_server(tmp_path / "own.key", work) == b""
    shared = Path("/dev/shm") / f"appliance-test-{os.getpid()}"  # noqa: S108 - that it is shared is the point
    shared.write_bytes(b"sk-shared")
    try:
        assert read_by_a_server(shared, work) == b""
    finally:
        shared.unlink()
    assert ETC.read_bytes()
    assert read_by_a_server(ETC, work) == b""
    assert read_by_a_server(Path("/etc/passwd"), work), "names of users are needed by many"
