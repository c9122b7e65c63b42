"""What is being written has another name until it is whole: a hidden file or folder beside the target, held by one process.

Invariants: a run that fails removes its unfinished form; a run that is killed or stopped leaves it, and the next goes on from it;
only one process at a time holds it (flock, which ends with the process).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError

FILE_MODE: Final = 0o644  # a bundle is signed, not secret


@contextmanager
def unfinished_file(target: Path) -> Iterator[int]:
    """The descriptor of the unfinished form of ``target``; the caller ends with :func:`finish_file`.

    Raises:
        ApplianceError: ``disk_full``, ``home_invalid``, ``conflict`` (another process writes it).
    """
    path = hidden(target)
    with translated(target):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _hold(descriptor, path)
            try:
                yield descriptor
            except Exception:
                with suppress(OSError):
                    path.unlink()
                raise
        finally:
            os.close(descriptor)


@contextmanager
def unfinished_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside ``target`` for files that get their names when all of them are whole. Raises as :func:`unfinished_file`."""
    path = hidden(target)
    with translated(target):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _hold(descriptor, path)
            try:
                yield path
            except Exception:
                shutil.rmtree(path, ignore_errors=True)
                raise
            with suppress(OSError):
                path.rmdir()
        finally:
            os.close(descriptor)


def finish_file(descriptor: int, path: Path, target: Path, size: int) -> None:
    """Give the unfinished ``path`` of ``size`` bytes its name."""
    os.ftruncate(descriptor, size)
    with suppress(PermissionError):  # FAT and its like know no modes
        os.fchmod(descriptor, FILE_MODE)
    os.fsync(descriptor)
    path.replace(target)


def hidden(target: Path) -> Path:
    """Name of the unfinished form."""
    return target.with_name(f".{target.name}.unfinished")


def require_space(folder: Path, size: int, there: int) -> None:
    """Raise ``OSError`` (ENOSPC) when ``size`` bytes do not fit, ``there`` of which are written already."""
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < size - there:
        raise OSError(errno.ENOSPC, "not enough space")


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(target: Path) -> Iterator[None]:
    """Say an ``OSError`` in the words of the house."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            hint = "free space there, or write to another disk (a FAT medium takes files below 4 GiB: --size 3900M); nothing was left behind"
            raise ApplianceError("disk_full", f"no space to write {target.name} in {target.parent}", hint=hint) from error
        if error.errno == errno.EIO:
            hint = "the medium or the disk is failing: copy to another one; nothing was left behind"
            raise ApplianceError("unavailable", f"reading or writing failed: {error.strerror}", hint=hint) from error
        raise ApplianceError("home_invalid", f"cannot write {target}: {error.strerror}", hint=f"check the folder {target.parent}") from error


def _hold(descriptor: int, path: Path) -> None:
    busy = ApplianceError("conflict", f"another process is writing {path.name}", hint="wait for it, or choose another output")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise busy from exc
    if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:  # its holder has just finished
        raise busy
