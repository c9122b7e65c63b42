"""A log to attack: built once, then copied, damaged and verified as files in memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.log import AuditLog
from appliance.audit.record import record_line, seal_line
from appliance.audit.verify import Verdict, verify_log

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
Files = dict[str, bytes]


async def append(log: AuditLog, text: str = "x") -> int:
    return await log.append(actor="user:anna", action="document.delete", resource=f"document:{text}", outcome="ok", trace_id="t")


@cache
def healthy() -> tuple[tuple[str, bytes], ...]:
    """About 40 records in batches of 1 to 5, in several segments."""

    async def build(folder: Path) -> None:
        async with await AuditLog.open(folder, KEY, segment_bytes=3000) as log:
            for batch in range(14):
                await asyncio.gather(*(append(log, f"{batch}.{i}") for i in range(1 + batch % 5)))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(build(Path(folder) / "audit"))
        return tuple(sorted((path.name, path.read_bytes()) for path in (Path(folder) / "audit").iterdir() if path.name != "lock"))


def segments(files: Files) -> list[str]:
    return sorted(name for name in files if name.endswith(".log"))


def put(folder: Path, files: Files) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def verdict_on(files: Files, *, expected: tuple[int, str] | None = None) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        return verify_log(put(Path(folder) / "audit", files), PUBLIC, expected=expected)


def redo_chain(lines: list[bytes], changed: int) -> list[bytes]:
    """What an attacker without the key can do: rewrite line ``changed`` and recompute every hash after it, keeping signatures."""
    result = lines[:changed]
    previous = lines[changed][len(b'{"schema_version":1,"seq":') :].split(b'"prev":"', 1)[1][:64]
    for index, line in enumerate(lines[changed:], changed):
        seq = int(line.split(b'"seq":', 1)[1].split(b",", 1)[0])
        fields = line.split(b'"prev":"', 1)[1][66:-76]
        if fields.startswith(b'"kind":"seal"'):
            redone, previous = seal_line(seq, previous, fields[-129:-1])
        else:
            redone, previous = record_line(seq, previous, fields.replace(b"user:anna", b"user:eve_") if index == changed else fields)
        result.append(redone)
    return result
