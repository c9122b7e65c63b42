"""Takes a backup of a home, also while its box runs, without stopping it.

What is in it: databases, originals, audit log, keys, models.toml, everything else in the home but what can be made again (indexes, model
snapshots unless asked for) or belongs to the running process (run, uploads, logs).

Why it is consistent: the databases are copied by SQLite's own online backup, each at one moment; originals are never changed in place and
are gathered (hard links) before and after that moment, so whatever a database names is there; the audit log only grows, and is cut at an end
that its own lock proves whole. A document that is uploaded and deleted again within the backup may be listed without its original.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from appliance.audit.head import NAME as HEAD_NAME
from appliance.audit.journal import held_still, list_segments
from appliance.audit.signing import PRIVATE_NAME, load_private_key
from appliance.audit.verify import read_head
from appliance.backup.archive import ArchiveWriter, Index, writing_archive
from appliance.home import Home
from appliance.kit.errors import ApplianceError

Progress = Callable[[str, int], None]
"""Called with a path and its bytes for every file."""

_MADE_AGAIN: Final = {"indexes", "run", "uploads", "logs"}
_DATABASE_SUFFIXES: Final = (".db", ".db-wal", ".db-shm", ".db-journal")


def take_backup(home: Home, target: Path, *, with_models: bool = False, progress: Progress | None = None) -> Index:
    """Write a backup of ``home`` to ``target``; a file that is there is replaced when the new one is whole.

    Raises:
        ApplianceError: ``home_invalid`` (nothing to back up), ``audit_broken``, ``disk_full``.
    """
    if not (home.keys / PRIVATE_NAME).exists():
        raise ApplianceError("home_invalid", f"{home.path} is not the home of a box", hint="set APPLIANCE_HOME")
    key = load_private_key(home.keys / PRIVATE_NAME)
    skip = _MADE_AGAIN | (set() if with_models else {"models"})
    with _gathering(home) as gathered, writing_archive(target) as archive:
        for source in gathered.databases():
            _add(archive, source.name, source, progress)
        for path, source in gathered.blobs():
            _add(archive, path, source, progress)
        for path, source in _others(home.path, skip):
            _add(archive, path, source, progress)
        head = _add_audit(home.audit, archive, progress)
        proven = read_head(home.audit, key.public_key())
        facts = {"made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "audit_segments": str(head), "audit_head_seen": f"{proven.seq}:{proven.hash}"}
        return archive.close(facts, key)


class _Gathered:
    """Copies of the databases and hard links of the originals, in a folder of the home that is deleted afterwards."""

    def __init__(self, home: Home, folder: Path) -> None:
        self._home, self._folder = home, folder

    def take(self) -> None:
        self._link_blobs()
        for database in sorted(self._home.path.glob("*.db")):
            _copy_database(database, self._folder / database.name)
        self._link_blobs()

    def databases(self) -> list[Path]:
        return sorted(self._folder.glob("*.db"))

    def blobs(self) -> list[tuple[str, Path]]:
        found = sorted((self._folder / "blobs").glob("??/*"))
        return [(path.relative_to(self._folder).as_posix(), path) for path in found]

    def _link_blobs(self) -> None:
        for blob in self._home.blobs.glob("??/*"):
            target = self._folder / "blobs" / blob.relative_to(self._home.blobs)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(blob)
            except (FileExistsError, FileNotFoundError):  # linked in the first round, or deleted by the box just now
                continue


@contextmanager
def _gathering(home: Home) -> Iterator[_Gathered]:
    run = home.running_file.parent
    run.mkdir(exist_ok=True, mode=0o700)
    for left_over in run.glob("backup-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="backup-", dir=run))
    try:
        gathered = _Gathered(home, folder)
        gathered.take()
        yield gathered
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_database(source: Path, target: Path) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=30)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            (verdict,) = copy.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as exc:
        raise ApplianceError("home_invalid", f"cannot copy {source.name}: {exc}", hint="appliance doctor says what is wrong with it") from exc
    if verdict != "ok":
        raise ApplianceError("home_invalid", f"{source.name} is damaged: {verdict}", hint="restore the last good backup")


def _others(home: Path, skip: set[str]) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(home):
        place = Path(folder)
        if place == home:
            folders[:] = [name for name in folders if name not in skip | {"blobs", "audit"}]
        folders.sort()
        for name in sorted(files):
            path = place / name
            if path.is_symlink() or not path.is_file() or name.startswith(".") or (place == home and name.endswith(_DATABASE_SUFFIXES)):
                continue
            yield path.relative_to(home).as_posix(), path


def _add_audit(folder: Path, archive: ArchiveWriter, progress: Progress | None) -> int:
    """Head and segments as they stand in one moment; what is appended later is left out."""
    if not (folder / HEAD_NAME).exists():
        return 0
    with held_still(folder), tempfile.TemporaryDirectory() as kept:
        head = Path(kept) / HEAD_NAME
        head.write_bytes((folder / HEAD_NAME).read_bytes())
        head.chmod(0o600)
        sizes = [(path, path.stat().st_size) for path in list_segments(folder)]
        _add(archive, f"audit/{HEAD_NAME}", head, progress)
    for path, size in sizes:
        archive.add(f"audit/{path.name}", path, size)
    return len(sizes)


def _add(archive: ArchiveWriter, path: str, source: Path, progress: Progress | None) -> None:
    archive.add(path, source)
    if progress is not None:
        progress(path, source.stat().st_size)
