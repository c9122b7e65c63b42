"""What ``appliance doctor`` looks at for tasks: the event log's server and room, the knowledge base, functions of the site, open tasks.

With the box down it looks at files; with the box up the box's own checks (event log, workers) are in ``/readyz``, which the doctor shows too.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.cli.findings import Finding
from appliance.home import Home
from appliance.kit.nats_config import CONFIG_FILE
from appliance.kit.nats_server import find_nats_server

_OLDEST: Final = (2, 12)
_MOST: Final = re.compile(r"^\s*max_file_store: (\d+)", re.MULTILINE)
_CROWDED: Final = 0.8
_SECONDS: Final = 10


def examine_tasks(home: Home) -> Iterator[Finding]:
    """Raises ApplianceError ``unavailable`` when there is no nats-server."""
    yield _server()
    if not (home.events / CONFIG_FILE).is_file():
        yield Finding("event log", "warn", "not made yet", "the first `appliance up` makes it")
        return
    yield from _event_log(home)
    yield _knowledge(home.knowledge)
    yield _functions(home.functions)


def _server() -> Finding:
    ended = subprocess.run([find_nats_server(), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False)
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", ended.stdout)
    if found is None:
        return Finding("nats-server", "fail", f"it does not start: {(ended.stderr or ended.stdout).strip()[:200]}", "run: make setup")
    if (int(found[1]), int(found[2])) < _OLDEST:
        return Finding("nats-server", "fail", f"{found[0]}: older ones than 2.12 let racing writers win", "run: make setup")
    return Finding("nats-server", "ok", found[0])


def _event_log(home: Home) -> Iterator[Finding]:
    settings = (home.events / CONFIG_FILE).read_text(encoding="utf-8")
    if "sync_interval: always" in settings:
        yield Finding(
            "event log", "ok", "syncs before it acknowledges; " + ("its server runs" if _is_held(home.events / "lock") else "its server is down")
        )
    else:
        yield Finding("event log", "fail", "it acknowledges before it syncs", "restart the box: appliance down, then appliance up")
    used = sum(path.stat().st_size for path in (home.events / "store").rglob("*") if path.is_file())
    most = int(found[1]) if (found := _MOST.search(settings)) else 0
    crowded = most > 0 and used > most * _CROWDED
    detail = f"{used / 2**20:.1f} of {most / 2**20:.0f} MiB"
    advice = "raise APPLIANCE_ORCHESTRATOR_MAX_LOG_BYTES, or lower APPLIANCE_ORCHESTRATOR_RETENTION_DAYS" if crowded else ""
    yield Finding("event log size", "warn" if crowded else "ok", detail, advice)


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _knowledge(folder: Path) -> Finding:
    database = folder / "knowledge.db"
    if not database.is_file():
        return Finding("knowledge", "warn", "not made yet", "the box makes it when it starts")
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (entries,) = connection.execute("SELECT count(*) FROM knowledge_entries").fetchone()
    except sqlite3.DatabaseError as exc:
        return Finding("knowledge", "fail", str(exc), "stop the box and restore the last backup")
    indexes = sorted(path.name for path in (folder / "indexes").iterdir()) if (folder / "indexes").is_dir() else []
    level = "ok" if verdict == "ok" else "fail"
    detail = f"{entries:,} entries; indexes: {', '.join(indexes) or 'none yet'}; compared with the database at every start"
    return Finding("knowledge", level, detail, "" if level == "ok" else "stop the box and restore the last backup")


def _functions(folder: Path) -> Finding:
    files = sorted(path.name for path in folder.glob("*.py")) if folder.is_dir() else []
    return Finding("functions", "ok", ", ".join(files) if files else f"none of this site; Python files in {folder} become task types")
