"""Files that are whole or absent, whatever happens to the power: temp file, fsync, link, fsync of the folder."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from appliance.kit.errors import ApplianceError


def write_once(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Put ``data`` at ``path`` unless a file is there: then it wins, and the answer is False. Safe to race; makes missing folders (mode 0700).

    Raises:
        ApplianceError: ``disk_full``, or ``home_invalid`` when the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            _write(temporary, data, mode)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise _translated(path, error) from error
    return True


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` at ``path`` in place of what is there; the folder must exist.

    Raises:
        ApplianceError: ``disk_full``, or ``home_invalid`` when the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            _write(temporary, data, mode)
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise _translated(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask says
        file.write(data)
        file.flush()
        os.fsync(fd)


def _translated(path: Path, error: OSError) -> ApplianceError:
    if is_disk_full(error):
        return ApplianceError("disk_full", f"no space to write {path.name}", hint="free space in the appliance home")
    return ApplianceError(
        "home_invalid",
        f"cannot write {path.name}: {error.strerror}",
        hint=f"check that {path.parent} belongs to the user who runs the box",
    )


def is_disk_full(error: OSError) -> bool:
    """Whether ``error`` means that space or quota ran out."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
