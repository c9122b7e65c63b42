"""The floor under the disk: work that writes much stops while free space is below it, and deleting still has room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from appliance.kit.errors import ApplianceError


class FreeSpace:
    """Asks the file systems of ``folders``.

    Args:
        folders: existing folders that are written to.
        least_bytes: what must stay free on each.
    """

    def __init__(self, folders: Sequence[Path], least_bytes: int) -> None:
        self._folders = folders
        self._least_bytes = least_bytes

    def check(self) -> None:
        """Raise ``disk_full`` when less is free. One system call for each folder."""
        for folder in self._folders:
            status = os.statvfs(folder)
            if status.f_bavail * status.f_frsize < self._least_bytes:
                raise ApplianceError(
                    "disk_full",
                    "too little disk space is left",
                    hint=f"free at least {self._least_bytes >> 20} MiB under the appliance home; waiting work goes on by itself",
                )
