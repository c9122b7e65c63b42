"""kill -9 in the middle of appending: nothing acknowledged is lost, and the chain holds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from appliance.audit.bootstrap import audit_folder, open_audit, public_key_path
from appliance.audit.reading import iterate_records
from appliance.audit.signing import load_public_key
from appliance.audit.verify import verify_log

APPEND = """
import asyncio, os, sys, pathlib
from appliance.audit.journal import Journal
from appliance.audit.log import AuditLog
from appliance.audit.signing import load_or_create_key

async def main():
    home, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    log = await AuditLog.open(home / "audit", load_or_create_key(home / "keys"), segment_bytes=60_000)
    async def caller(number):
        for i in range(1_000_000):
            thing = f"{name}.{number}.{i}"
            seq = await log.append(actor="user:a", action="thing.make", resource=thing, outcome="ok")
            os.write(1, f"{seq} {thing}\\n".encode())
    await asyncio.gather(*(caller(number) for number in range(16)))

asyncio.run(main())
"""


def start(home: Path, name: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    return subprocess.Popen([sys.executable, "-c", APPEND, str(home), name], stdout=subprocess.PIPE, env=environment)


def kill_after(child: subprocess.Popen[bytes], lines: int) -> list[tuple[int, str]]:
    """What the child had acknowledged when it was killed."""
    assert child.stdout is not None
    seen = [child.stdout.readline() for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    seen += child.stdout.readlines()
    child.stdout.close()
    child.wait(30)
    pairs = [line.split() for line in seen if line.endswith(b"\n")]
    return [(int(seq), thing.decode()) for seq, thing in pairs]


def test_nothing_acknowledged_is_lost_when_writers_are_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: dict[int, str] = {}
    for round_number in range(4):
        children = [start(tmp_path, f"{round_number}{letter}") for letter in "ab"]  # two processes on one log
        for child in children:
            for seq, thing in kill_after(child, chance.randint(1, 400)):
                assert seq not in acknowledged
                acknowledged[seq] = thing

    async def restart() -> int:
        async with await open_audit(tmp_path) as log:
            return await log.append(actor="system:test", action="box.start", resource="box:1", outcome="ok")

    last = asyncio.run(restart())
    verdict = verify_log(audit_folder(tmp_path), load_public_key(public_key_path(tmp_path)))
    assert verdict.fault is None
    assert verdict.records == last
    assert verdict.segments > 1
    written = {record.seq: record.resource for record in iterate_records(audit_folder(tmp_path))}
    assert len(acknowledged) > 500
    assert acknowledged.items() <= written.items()


def test_a_running_box_can_be_verified_while_it_appends(tmp_path: Path) -> None:
    child = start(tmp_path, "live")
    assert child.stdout is not None
    child.stdout.readline()
    key = load_public_key(public_key_path(tmp_path))
    counts = []
    for _ in range(5):
        verdict = verify_log(audit_folder(tmp_path), key)
        assert verdict.fault is None
        counts.append(verdict.records)
        for _ in range(50):
            child.stdout.readline()
    kill_after(child, 1)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
