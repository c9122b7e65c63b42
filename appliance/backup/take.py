"""Takes a backup of a home, also while its box runs, without stopping it.

What is in it: databases, originals, documents that were made, event log, audit log, keys, what people write (models.toml, agents.toml …), templates, the
trained router, approvals, everything else in the home but what can be made again (indexes, model snapshots unless asked for) or belongs to the running process
(run, uploads, logs).

Why it is consistent: the event log is taken first (``event_log`` says how); the databases are copied by SQLite's own online backup, each at one moment; originals and
made documents are never changed in place and are gathered (hard links) before and after that moment, so whatever a database names is there; the audit log only grows, and is cut at an end
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
from appliance.backup import event_log
from appliance.backup.archive import ArchiveWriter, writing_archive
from appliance.backup.index import Facts, Index
from appliance.home import Home
from appliance.kit.errors import ApplianceError
from appliance.kit.ownership import acting_as_owner

Progress = Callable[[str, int], None]
"""Called with a path and its bytes for every file."""

_OF_THE_SITE: Final = "site_history.json"  # how far this site's history was copied; another site has another history
_MADE_AGAIN: Final = {"indexes", "run", "uploads", "logs"}
_BY_DIGEST: Final = ("blobs", "artefacts")
_TAKEN_APART: Final = {*_BY_DIGEST, "audit", event_log.FOLDER}
_KNOWLEDGE: Final = "knowledge"
_MADE_OF_KNOWLEDGE: Final = {"indexes", "graphs"}
_DATABASE_SUFFIXES: Final = (".db", ".db-wal", ".db-shm", ".db-journal")


def take_backup(home: Home, target: Path, *, with_models: bool = False, progress: Progress | None = None) -> Index:
    """Write a backup of ``home`` to ``target``; a file that is there is replaced when the new one is whole.

    Root writes ``target`` itself and reads the home as its owner: a link that stands in the home leads nowhere the owner could not go.

    Raises:
        ApplianceError: ``home_invalid`` (nothing to back up), ``invalid_request`` (``target`` is in the home), ``audit_broken``, ``disk_full``.
    """
    if target.resolve().is_relative_to(home.path.resolve()):
        hint = "name a place outside with -o, best on another disk: what is in the home is lost with it"
        raise ApplianceError("invalid_request", f"{target} is inside the home that it would save", hint=hint)
    with acting_as_owner(home.path):
        if not (home.keys / PRIVATE_NAME).exists():
            raise ApplianceError("home_invalid", f"{home.path} is not the home of a box", hint="set APPLIANCE_HOME")
    with writing_archive(target) as archive, acting_as_owner(home.path):
        key = load_private_key(home.keys / PRIVATE_NAME)
        with _gathering(home) as gathered:
            for path, source in gathered.all():
                _add(archive, path, source, progress)
            for path, source in _others(home.path, _MADE_AGAIN | (set() if with_models else {"models"})):
                _add(archive, path, source, progress)
            segments = _add_audit(home.audit, archive, progress)
            proven = read_head(home.audit, key.public_key())
            made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return archive.close(Facts(made_at, str(segments), f"{proven.seq}:{proven.hash}"), key)


class _Gathered:
    """Copies of the databases and hard links of the originals, in a folder of the home that is deleted afterwards."""

    def __init__(self, home: Home, folder: Path) -> None:
        self._home, self._folder = home, folder

    def take(self) -> None:
        event_log.take_event_log(self._home.path, self._folder / event_log.FOLDER)
        self._link_blobs()
        for database in sorted([*self._home.path.glob("*.db"), *self._home.path.glob(f"{_KNOWLEDGE}/*.db")]):
            target = self._folder / database.relative_to(self._home.path)
            target.parent.mkdir(exist_ok=True, mode=0o700)
            _copy_database(database, target)
        self._link_blobs()

    def all(self) -> Iterator[tuple[str, Path]]:
        """Databases, then the rest."""
        found = (Path(folder) / name for folder, _, names in os.walk(self._folder) for name in names)  # links stay links, and the archive takes none
        for path in sorted(found, key=lambda path: (path.suffix != ".db", path)):
            yield path.relative_to(self._folder).as_posix(), path

    def _link_blobs(self) -> None:
        for blob in (blob for name in _BY_DIGEST for blob in (self._home.path / name).glob("??/*")):
            target = self._folder / blob.relative_to(self._home.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(blob, target, follow_symlinks=False)  # a link stays one, and the archive takes none
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
    if source.is_symlink() or not source.is_file():
        raise ApplianceError("home_invalid", f"{source.name} is no plain file", hint="put the file itself in the home, not a link to it")
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
    for folder, folders, files in os.walk(home, onerror=_unreadable):
        place = Path(folder)
        if place == home:
            folders[:] = [name for name in folders if name not in skip | _TAKEN_APART]
        if place == home / _KNOWLEDGE:
            folders[:] = [name for name in folders if name not in _MADE_OF_KNOWLEDGE]
        folders.sort()
        for name in sorted(files):
            path = place / name
            if not name.startswith(".") and not _is_taken(place.relative_to(home), name):
                yield path.relative_to(home).as_posix(), path


def _is_taken(place: Path, name: str) -> bool:
    """A database, which was copied at one moment, or what belongs to the site."""
    return place in {Path(), Path(_KNOWLEDGE)} and (name.endswith(_DATABASE_SUFFIXES) or name == _OF_THE_SITE)


def _unreadable(error: OSError) -> None:
    hint = "give it back to the user of the box (chown), then repeat"
    raise ApplianceError("home_invalid", f"cannot read {error.filename}: {error.strerror}", hint=hint)


def _add_audit(folder: Path, archive: ArchiveWriter, progress: Progress | None) -> int:
    """Head and segments as they stand in one moment; what is appended later is left out."""
    if not (folder / HEAD_NAME).exists():
        return 0
    with held_still(folder):
        head = (folder / HEAD_NAME).read_bytes()
        sizes = [(path, path.stat().st_size) for path in list_segments(folder)]
    archive.add_bytes(f"audit/{HEAD_NAME}", head)
    for path, size in sizes:
        if not _add(archive, f"audit/{path.name}", path, progress, size):
            raise ApplianceError("audit_broken", f"{path} is no plain file", hint="run `appliance audit verify`")
    return len(sizes)


def _add(archive: ArchiveWriter, path: str, source: Path, progress: Progress | None, size: int | None = None) -> bool:
    saved = archive.add(path, source, size)
    if saved is not None and progress is not None:
        progress(path, saved.size)
    return saved is not None
