"""Who may change a site. Owns the two locks.

``.lock``         held by a command, and by the guard that it starts, from the first to the last step of one operation. Taken at once or refused.
``.switch.lock``  held for moments around every change of ``pending.json`` and ``current``, also by ``settle``. Waited for.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.bundle.site.durable import site_failure
from appliance.bundle.site.layout import Site
from appliance.kit.errors import ApplianceError

_MOMENT_SECONDS: Final = 0.3


@contextmanager
def operation_lock(site: Site, inherited: int | None = None) -> Iterator[int]:
    """One operation at a time; yields the descriptor that a child may inherit to keep the lock beyond this process.

    Raises:
        ApplianceError: ``site_busy``.
    """
    descriptor = _open(site.path / ".lock") if inherited is None else inherited
    try:
        os.set_inheritable(descriptor, False)  # the box that this process starts must not hold it
        if not _taken(descriptor):
            hint = "wait until it has finished: appliance bundle status"
            raise ApplianceError("site_busy", f"another command is changing {site.path}", hint=hint)
        yield descriptor
    finally:
        os.close(descriptor)


def is_watched(site: Site) -> bool:
    """Whether a command or its guard is at work on this site."""
    descriptor = _open(site.path / ".lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def switch_lock(site: Site) -> Iterator[None]:
    """Nobody else changes ``pending.json`` or ``current``."""
    descriptor = _open(site.path / ".switch.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Try for a moment: ``is_watched`` of a starting service holds the lock for microseconds."""
    deadline = time.monotonic() + _MOMENT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise site_failure(path, exc) from exc
