"""References on snapshots: an open descriptor of ``snapshot.json`` that holds a shared lock. Owns: taking, testing and excluding them.

Does not own: which snapshots may go (``collecting``). The kernel drops a reference when its process ends, however it ends; no file is written, so a
read-only hub can be leased too. A loader takes the lease first and reads afterwards.

Invariants:
1. While a lease lives, :func:`claim` of the same folder fails, in every process.
2. A lease is on the index that lies at the path now: a snapshot that was moved away between opening and leasing is ``snapshot_missing``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.hub.snapshot_index import INDEX_NAME
from appliance.hub.snapshots import REPAIR_HINT, Snapshot
from appliance.kit.errors import ApplianceError


class Lease:
    """One reference; closing it twice is harmless."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Give the reference back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def lease(snapshot: Snapshot) -> Lease:
    """Hold ``snapshot``: nobody collects it until the lease is closed or this process ends.

    Raises:
        ApplianceError: ``snapshot_missing`` when it was collected or replaced in the meantime: read models.toml again.
    """
    index = snapshot.folder / INDEX_NAME
    gone = ApplianceError("snapshot_missing", f"model snapshot {snapshot.label} has just been removed", hint=REPAIR_HINT)
    try:
        descriptor = os.open(index, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise gone from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if not _is_still_there(descriptor, index):
            raise gone
    except OSError as exc:  # a collector holds it: it is on its way out
        os.close(descriptor)
        raise gone from exc
    except BaseException:
        os.close(descriptor)
        raise
    return Lease(descriptor)


def in_use(folder: Path) -> bool:
    """Whether any process holds a lease on the snapshot in ``folder``; False when there is none."""
    try:
        with claim(folder):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Exclude leases on ``folder`` for as long as the block runs.

    Raises:
        BlockingIOError: somebody holds a lease.
        FileNotFoundError: there is no snapshot.
    """
    index = folder / INDEX_NAME
    descriptor = os.open(index, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still_there(descriptor, index):
            raise FileNotFoundError(str(index))
        yield
    finally:
        os.close(descriptor)


def _is_still_there(descriptor: int, index: Path) -> bool:
    try:
        now = index.stat(follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), now)
