"""Changes on the disk that are whole or absent, whatever happens to the process or the power. Owns how; what is written is the callers' business.

Invariants: a file appears under its name only complete and on the disk; a link is switched by one rename(2); a full disk changes nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from appliance.kit.errors import ApplianceError


def put_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``. Raises ``disk_full``, ``site_invalid``."""
    temporary = _beside(path)
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)  # whatever the umask says
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as exc:
        raise site_failure(path, exc) from exc


def put_link(link: Path, target: str) -> None:
    """Point ``link`` at ``target`` in one step. Raises ``disk_full``, ``site_invalid``."""
    temporary = _beside(link)
    try:
        try:
            temporary.symlink_to(target)
            temporary.replace(link)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(link.parent)
    except OSError as exc:
        raise site_failure(link, exc) from exc


def remove_file(path: Path) -> None:
    """Remove ``path`` for good; absent is fine. Raises ``site_invalid``."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as exc:
        raise site_failure(path, exc) from exc


def read_file(path: Path, limit_bytes: int) -> bytes | None:
    """The content of a plain file that only its owner or root could have written; None when absent.

    Raises:
        ApplianceError: ``site_invalid`` for links, devices, foreign owners, files others may write, and too long ones.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise site_failure(path, exc) from exc
    with os.fdopen(descriptor, "rb") as file:
        check_ownership(path, os.fstat(descriptor), stat.S_ISREG)
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ApplianceError("site_invalid", f"{path} is longer than {limit_bytes} bytes", hint=_TAMPERED)
    return data


def check_ownership(path: Path, status: os.stat_result, is_expected: object = stat.S_ISDIR) -> None:
    """Refuse what is of another type, owned by a third user, or open for others to write. Raises ``site_invalid``."""
    if not callable(is_expected) or not is_expected(status.st_mode):
        raise ApplianceError("site_invalid", f"{path} is not what must be there (a link, or a file of another type)", hint=_TAMPERED)
    if status.st_uid not in {0, os.geteuid()}:
        raise ApplianceError("site_invalid", f"{path} belongs to user {status.st_uid}", hint=_TAMPERED)
    if status.st_mode & 0o022:
        raise ApplianceError("site_invalid", f"{path} may be written by others (mode {stat.S_IMODE(status.st_mode):04o})", hint=_TAMPERED)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Make everything on the file system of ``folder`` durable (syncfs(2)): one call instead of thousands of fsync."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if call is None:
            os.sync()
        elif call(descriptor) != 0:
            number = ctypes.get_errno()
            raise site_failure(folder, OSError(number, os.strerror(number)))
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder of read-only files; never follows a link. Absent is fine. Raises ``site_invalid``."""
    try:
        with suppress(FileNotFoundError):
            _remove(folder)
    except OSError as exc:
        raise site_failure(folder, exc) from exc


def site_failure(path: Path, error: OSError) -> ApplianceError:
    """What a failed system call means to the operator."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ApplianceError(
            "disk_full", f"no space to write {path.name}; the box is as it was", hint="free space (appliance bundle prune), then repeat the command"
        )
    return ApplianceError(
        "site_invalid", f"{path}: {error.strerror or error}", hint="check that the folder exists and belongs to the user who installs (root)"
    )


def _remove(folder: Path) -> None:
    if not stat.S_ISDIR(folder.lstat().st_mode):
        folder.unlink()
        return
    folder.chmod(0o755)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove(Path(entry.path))
            else:
                Path(entry.path).unlink()
    folder.rmdir()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


_TAMPERED = "somebody else changed the site folder: compare it with the bundle (appliance bundle verify) before going on"
