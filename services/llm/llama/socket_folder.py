"""The folder of one socket: made, held, removed; and those removed that nobody holds any more.

A box that is killed leaves its folder behind. Whether its box lives says a lock, which the kernel lets go with the last descriptor, and not a process id:
boxes in other PID namespaces share ``/tmp``, and there an id means another process or none. Does not own: the socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "appliance-llm-"
_LOCK: Final = "lock"


class SocketFolder:
    """``SocketFolder.make()``, then :meth:`remove`. ``path`` is the folder."""

    def __init__(self, path: Path, held: int) -> None:
        self.path = path
        self._held = held

    @classmethod
    def make(cls) -> SocketFolder:
        """A new one, after those that were left behind are gone."""
        sweep()
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))  # 0700: nobody else reaches the socket
        new = path / f"{_LOCK}.new"
        held = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        new.rename(path / _LOCK)  # under this name it is held, or its box is gone
        return cls(path, held)

    def remove(self) -> None:
        """Remove it and let it go."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def sweep() -> None:
    """Remove the folders that nobody holds. One without a lock is none of ours, or is just being made."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Raises OSError where there is no lock, or it is held."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        return False
    held = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(held)
    return True
