"""Audit log and identity: append throughput and latency, verification speed, cost of recognising a caller.

``make bench-audit-append`` or ``python -m bench.audit_append [--json FILE] [--folder DIR]``. The latency of a lone append is dominated
by one ``fdatasync`` of the disk, so that is measured beside it, interleaved, and the overhead is stated as the difference.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from appliance.audit.bootstrap import audit_folder, open_audit, public_key_path
from appliance.audit.log import AuditLog
from appliance.audit.signing import load_public_key
from appliance.audit.verify import verify_log
from appliance.identity.bootstrap import bootstrap_admin, open_identity
from bench.report import Row, arguments, report

LONE = 1500
RECORDS = 60_000


def row(metric: str, value: float, unit: str, target: float | None = None, *, at_least: bool = False) -> Row:
    return Row("audit-append", metric, round(value, 4), unit, target, at_least=at_least)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def append(log: AuditLog) -> asyncio.Future[int]:
    return log.append_nowait(
        actor="user:anna",
        action="chat.ask",
        resource="space:legal",
        outcome="allow",
        detail={"passages": 5, "model": "default"},
        trace_id="0af7651916cd43dd",
    )


async def alone(log: AuditLog, folder: Path) -> list[Row]:
    """One caller; between two appends one bare write + fdatasync of the same size on the same disk."""
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT, 0o600)
    bare, ours = [], []
    for i in range(LONE):
        started = time.perf_counter()
        os.pwrite(fd, b"x" * 600, i * 600)
        os.fdatasync(fd)
        bare.append(time.perf_counter() - started)
        started = time.perf_counter()
        await append(log)
        ours.append(time.perf_counter() - started)
    os.close(fd)
    return [
        row("append alone p50", percentile(ours, 0.5) * 1e3, "ms", 0.4),
        row("append alone p99", percentile(ours, 0.99) * 1e3, "ms"),
        row("bare write+fdatasync p50", percentile(bare, 0.5) * 1e3, "ms"),
        row("append over bare p50", (percentile(ours, 0.5) - percentile(bare, 0.5)) * 1e3, "ms"),
    ]


async def together(log: AuditLog, callers: int) -> float:
    async def caller() -> None:
        for _ in range(RECORDS // callers):
            await append(log)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (RECORDS // callers) * callers / (time.perf_counter() - started)


async def recognised(home: Path, log: AuditLog) -> list[Row]:
    """Cost of authenticate() for a caller seen before, and for one seen the first time."""
    await bootstrap_admin(home, log)
    async with open_identity(home, log) as identity:
        bearer = (home / "admin.key").read_text().strip()
        started = time.perf_counter()
        await identity.authenticate(bearer)
        first = time.perf_counter() - started
        rounds = []
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(5000):
                await identity.authenticate(bearer)
            rounds.append((time.perf_counter() - started) / 5000)
    return [row("authenticate, cached", statistics.median(rounds) * 1e6, "us", 10), row("authenticate, first time", first * 1e3, "ms")]


async def measure(folder: Path, say: Callable[[str], None]) -> list[Row]:
    rows: list[Row] = []
    async with await open_audit(folder) as log:
        say("one caller")
        rows += await alone(log, folder)
        for callers in (8, 32, 256):
            say(f"{callers} callers")
            target = 15_000 if callers == 32 else None
            rows.append(row(f"appends, {callers} callers", await together(log, callers), "1/s", target, at_least=True))
        say("authenticate")
        rows += await recognised(folder, log)
    say("verify")
    started = time.perf_counter()
    verdict = verify_log(audit_folder(folder), load_public_key(public_key_path(folder)))
    rows.append(row("verify", verdict.records / (time.perf_counter() - started), "records/s", 200_000, at_least=True))
    if not verdict.is_whole:
        raise SystemExit(f"the log does not verify: {verdict.fault}")
    return rows


def main() -> int:
    """Measure, print a table, write JSON lines when asked."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (the disk that is measured)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report(asyncio.run(measure(Path(folder), lambda text: print(f"... {text}", file=sys.stderr))), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
