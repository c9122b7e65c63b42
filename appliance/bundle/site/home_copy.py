"""Copies of the box's databases and event log before an upgrade changes them, and the way back to them. Runs as the user of the box while it is stopped.

Owns ``<home>/upgrade-copies/<generation>/``: ``before/`` the copy made before the last change to that generation; ``set-aside/`` what a return to the
copy took out of use (never deleted by a command). Originals, audit log and keys are not copied: no release changes them in place.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from appliance.bundle.site.durable import remove_tree, sync_file_system, sync_folder
from appliance.kit.errors import ApplianceError

FOLDER: Final = "upgrade-copies"
DONE: Final = "whole"
_VERSION_TABLE: Final = "_schema_version"
_SPARE_BYTES: Final = 32 * 2**20
_WITH_DATABASES: Final = (".", "knowledge")
_EVENTS: Final = Path("nats", "store")  # an older release may not know what a newer one wrote there


def databases(home: Path) -> list[Path]:
    """The SQLite files right in the home and of the knowledge base."""
    folders = [home / name for name in _WITH_DATABASES if not (home / name).is_symlink()]
    found = (path for folder in folders for path in folder.glob("*.db"))
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and _is_sqlite(path))


def _size(home: Path) -> int:
    """Bytes of what is copied."""
    events = (path for path in (home / _EVENTS).rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in (*databases(home), *events))


def _is_sqlite(path: Path) -> bool:
    """By the magic string at the beginning (SQLite file format, section 1.3); an empty file is a database without tables."""
    with path.open("rb") as file:
        return file.read(16) in {b"", b"SQLite format 3\0"}


def schema_versions(home: Path) -> dict[str, str]:
    """Schema name → applied revision, from the tables ``<name>_schema_version`` of every database."""
    found: dict[str, str] = {}
    for path in databases(home):
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%_schema_version'").fetchall()
            for (table,) in tables:
                name = table.removesuffix(_VERSION_TABLE)
                row = connection.execute(f'SELECT version_num FROM "{table}"').fetchone() if name.replace("_", "").isalnum() else None  # noqa: S608 - a checked name
                found.update({name: str(row[0])} if row else {})
    return found


def has_copy(home: Path, generation: str, operation: str = "") -> bool:
    """Whether a whole copy from before ``generation`` is there; with ``operation``: one that this very change made."""
    mark = home / FOLDER / generation / "before" / DONE
    return mark.is_file() and operation in {"", mark.read_text()}


def copy_before(home: Path, generation: str, operation: str) -> int:
    """Copy the databases before ``generation`` runs; safe to repeat. Returns the bytes copied, 0 when this operation made the copy already.

    A copy of an earlier operation is never taken for it: the box may have worked for weeks since. Only the newest copies are kept.

    Raises:
        ApplianceError: ``disk_full``.
    """
    if has_copy(home, generation, operation):
        return 0
    folder = home / FOLDER / generation / "before"
    files = databases(home)
    size = _size(home)
    check_copy_space(home, size)
    for old in (home / FOLDER).glob("*/before"):
        remove_tree(old)
    folder.mkdir(parents=True, mode=0o700)
    for path in files:
        _copy(path, _below(folder, path.relative_to(home)))
    _copy_events(home, folder)
    sync_file_system(folder)
    (folder / DONE).write_text(operation)
    sync_file_system(folder)
    return size


def check_copy_space(home: Path, size: int) -> None:
    """Refuse when the home's disk cannot hold a copy of ``size`` bytes. Raises ``disk_full``."""
    if shutil.disk_usage(home).free < size + _SPARE_BYTES:
        raise ApplianceError(
            "disk_full", f"the copy of the databases before the upgrade needs {(size + _SPARE_BYTES) // 2**20} MiB in {home}",
            hint="free space in the appliance home, then repeat the command",
        )  # fmt: skip


def restore(home: Path, generation: str, set_aside: str, operation: str = "") -> None:
    """Put the copy from before ``generation`` back; what is there now goes into ``set-aside/<set_aside>``. Safe to repeat.

    With ``operation`` only the copy that this change made will do.

    Raises:
        ApplianceError: ``not_found`` when there is no whole copy; ``disk_full``.
    """
    source = home / FOLDER / generation / "before"
    if not has_copy(home, generation, operation):
        raise ApplianceError("not_found", f"there is no copy of the data from before {generation}", hint="restore the site's own backup of the home")
    aside = home / FOLDER / generation / "set-aside" / set_aside
    check_copy_space(home, 2 * sum(path.stat().st_size for path in databases(home)) + _size(source))
    if not (aside / DONE).is_file():  # else a killed run was past this point, and the databases may be old ones already
        remove_tree(aside)
        aside.mkdir(parents=True, mode=0o700)
        for path in databases(home):
            _set_aside(path, _below(aside, path.relative_to(home)))
        if (home / _EVENTS).is_dir() and (source / _EVENTS).is_dir():
            (home / _EVENTS).rename(_below(aside, _EVENTS))
        (aside / DONE).touch(0o600)
        sync_file_system(aside)
    for copy in databases(source):
        _put_back(copy, _below(home, copy.relative_to(source)))
    _put_events_back(home, source)
    sync_folder(home)


def _put_back(copy: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.restoring")
    shutil.copyfile(copy, temporary)
    temporary.chmod(0o600)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    for suffix in ("-wal", "-shm"):
        target.with_name(f"{target.name}{suffix}").unlink(missing_ok=True)
    temporary.replace(target)
    sync_folder(target.parent)


def _copy_events(home: Path, folder: Path) -> None:
    """The event log's files: its server is stopped with the box, and what it acknowledged is in them."""
    if (home / _EVENTS).is_dir() and not (home / _EVENTS).is_symlink():
        shutil.copytree(home / _EVENTS, _below(folder, _EVENTS), symlinks=True)


def _put_events_back(home: Path, source: Path) -> None:
    """Whole or not at all; a copy from before there were tasks leaves the log as it is: the older release has no use for it."""
    if not (source / _EVENTS).is_dir():
        return
    temporary = _below(home, _EVENTS).with_name(f".{_EVENTS.name}.restoring")
    remove_tree(temporary)
    shutil.copytree(source / _EVENTS, temporary, symlinks=True)
    sync_file_system(temporary)
    remove_tree(home / _EVENTS)  # of a run that was killed here: the one that was in use is set aside
    temporary.rename(home / _EVENTS)
    sync_folder((home / _EVENTS).parent)


def _below(folder: Path, path: Path) -> Path:
    """``folder/path``, its parent made."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return target


def _set_aside(source: Path, target: Path) -> None:
    """Like :func:`_copy`; a database that SQLite cannot read is kept byte for byte, with its write-ahead log."""
    try:
        _copy(source, target)
    except sqlite3.Error:
        target.unlink(missing_ok=True)
        for path in (source, *source.parent.glob(f"{source.name}-*")):
            shutil.copyfile(path, target.with_name(path.name))


def _copy(source: Path, target: Path) -> None:
    """SQLite's own backup: takes what is in the write-ahead log along, and gives one file without one."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source, timeout=10)) as reading, closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")
    target.chmod(0o600)
