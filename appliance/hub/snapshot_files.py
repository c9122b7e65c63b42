"""Files of a snapshot folder: plain ones only, never through a link, durable when written. Knows nothing of indexes and digests."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path


def open_plain(file: Path) -> BufferedReader:
    """Open a regular file; a link, pipe or device is an error.

    Raises:
        ValueError: it is something else.
        OSError: it cannot be opened.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("is not a plain file")
    return os.fdopen(descriptor, "rb")


def read_plain(file: Path, limit_bytes: int) -> bytes:
    """The content of a small file.

    Raises:
        ValueError: it is no plain file, or larger.
        OSError: it cannot be read.
    """
    with open_plain(file) as stream:
        data = stream.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"is larger than {limit_bytes} bytes")
    return data


def files_below(folder: Path) -> set[str]:
    """Relative POSIX names of everything that is not a folder; links count as files."""
    return {entry.relative_to(folder).as_posix() for entry in folder.rglob("*") if entry.is_symlink() or not entry.is_dir()}


def seal_folder(folder: Path) -> None:
    """Make everything below durable and read-only."""
    for entry in [*folder.rglob("*"), folder]:
        sync(entry)
        entry.chmod(0o755 if entry.is_dir() else 0o444)


def sync(path: Path) -> None:
    """Fsync a file or folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_like(path: Path, folder: Path) -> None:
    """Give what root made to whoever owns ``folder``, so that the box, which is not root, can use it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def remove_tree(folder: Path) -> None:
    """Delete a folder whose entries are read-only; a no-op when it is gone."""
    if not folder.is_dir():
        return
    for below in (folder, *(entry for entry in folder.rglob("*") if entry.is_dir() and not entry.is_symlink())):
        below.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def move_aside(target: Path, in_use: Callable[[Path], bool]) -> None:
    """Keep what stood there for inspection as ``….replaced``: the last one, and those that somebody still reads."""
    if not os.path.lexists(target):
        return
    names = (f"{target.name}.replaced{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    aside = next(place for place in map(target.with_name, names) if not in_use(place))
    remove_tree(aside)
    target.rename(aside)
