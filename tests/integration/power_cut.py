"""A disk whose power can be cut: an ext4 image on a loop device, shut down without flushing its log (as xfstests does), then mounted again.

What was not synced is gone, in the order that ext4 and the page cache choose. Needs root, ``mkfs.ext4`` and loop devices.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_UNMOUNT_SECONDS = 10.0


class PowerDisk:
    """One disk, mounted at ``path``."""

    def __init__(self, path: Path, size_mb: int) -> None:
        self.path = path
        self._image = path.with_suffix(".img")
        path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_mb << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self._mount()

    def cut(self) -> None:
        """The power fails now."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Power is back; nobody may have anything open."""
        self._unmount()
        self._mount()

    def close(self) -> None:
        self._unmount()
        self._image.unlink()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)

    def _unmount(self) -> None:
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while subprocess.run(["umount", str(self.path)], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, f"{self.path} stays busy"
            time.sleep(0.05)  # between tries, not in place of one


def why_not() -> str | None:
    """Why power cannot be cut here, None when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("mkfs.ext4") is None:
        return "needs mkfs.ext4"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return None


@contextlib.contextmanager
def power_disks(folder: Path, count: int, size_mb: int = 256) -> Iterator[list[PowerDisk]]:
    with contextlib.ExitStack() as stack:
        disks = [PowerDisk(folder / f"disk{number}", size_mb) for number in range(count)]
        for disk in disks:
            stack.callback(disk.close)
        yield disks
