"""Working in a folder that somebody else owns: as that user, for as long as it takes. Owns the effective user of the process, nothing on the disk.

Why: whoever owns a folder can put a link in the place of any file in it. Root that follows it writes, empties or reads what the link names; the
owner that follows it reaches what the owner could reach anyway. Only the effective ids change (for every thread), so root comes back afterwards,
and the owner can neither trace nor stop the process meanwhile. Which processes may be *signalled* this does not change: root's real id stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """Run the block as the user who owns ``folder``; no change when that is who runs already, when this is not root, or when there is no folder."""
    try:
        status = folder.stat()
    except OSError:
        status = None
    if status is None or os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    with _acting(status.st_uid, status.st_gid, []):
        yield


@contextmanager
def acting_as_caller() -> Iterator[None]:
    """Inside :func:`acting_as_owner`: be who started the command again, for a file of the operator's (a medium, a model to import)."""
    if os.geteuid() == os.getuid():
        yield
        return
    owner, group, groups = os.geteuid(), os.getegid(), os.getgroups()
    os.seteuid(os.getuid())
    os.setegid(os.getgid())
    try:
        yield
    finally:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(owner)


@contextmanager
def _acting(user: int, group: int, groups: list[int]) -> Iterator[None]:
    before = os.getgroups(), os.getegid()
    os.setgroups(groups)
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[1])
        os.setgroups(before[0])
