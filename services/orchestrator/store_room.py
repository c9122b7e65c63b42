"""Room on the disk that a server of our own writes to. Owns the refusal before it is full.

Why: a stream whose write failed takes nothing any more, not even a purge, until its server is started again (measured on 2.15.1).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError

RESERVE_BYTES: Final = 128 * 1024 * 1024
_LOOK_SECONDS: Final = 0.25
_LOOK_BYTES: Final = 16 * 1024 * 1024


class StoreRoom:
    """Looks at the disk now and then.

    Args:
        folder: on the disk that is watched; None watches nothing (the servers are elsewhere).
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._look_at = 0.0
        self._unseen = 0
        self._free = 0

    def take(self, size_bytes: int) -> None:
        """Count what is going to be written. Raises ApplianceError ``disk_full`` when it would leave less than the reserve."""
        if self._folder is None:
            return
        self._unseen += size_bytes
        now = time.monotonic()
        if now >= self._look_at or self._unseen >= _LOOK_BYTES:
            found = os.statvfs(self._folder)
            self._free, self._unseen, self._look_at = found.f_bavail * found.f_frsize, size_bytes, now + _LOOK_SECONDS
        if self._free - self._unseen < RESERVE_BYTES:
            self._look_at = 0.0
            raise ApplianceError(
                "disk_full",
                f"{self._free // 2**20} MiB are left for the event log, {RESERVE_BYTES // 2**20} MiB are kept free",
                hint="free space on the disk of the box, then try again",
            )
