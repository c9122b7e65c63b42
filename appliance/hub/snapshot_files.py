"""Files of a snapshot folder: plain ones only, never through a link, durable when written. Knows nothing of indexes and digests."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def locked_file(file: Path) -> Iterator[None]:
    """Hold ``file`` (made when absent, never emptied) for this process alone; a second waits. Raises OSError, also for a link in its place."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
    """Delete a folder whose entries are read-only; a no-op when it is gone. A link in its place is deleted itself, never what it leads to."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    if not folder.is_dir():
        return
    _make_writable(folder)
    for _, folders, _, descriptor in os.fwalk(folder):
        for name in folders:
            _make_writable(name, descriptor)
    shutil.rmtree(folder, ignore_errors=True)


def _make_writable(folder: str | Path, parent: int | None = None) -> None:
    with suppress(OSError):  # a link, or gone: not ours to touch
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)


def move_aside(target: Path, in_use: Callable[[Path], bool]) -> None:
    """Keep what stood there for inspection as ``….replaced``: the last one, and those that somebody still reads."""
    if not os.path.lexists(target):
        return
    names = (f"{target.name}.replaced{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    aside = next(place for place in map(target.with_name, names) if not in_use(place))
    remove_tree(aside)
    target.rename(aside)
