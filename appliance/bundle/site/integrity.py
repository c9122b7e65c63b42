"""Whether an installed generation is still what was installed: its files against its manifest, its environment against its list. Changes nothing.

Invariant: no generation is switched to unless it was whole in the same command. Weights of models are compared by size here, so that a rollback takes
a moment; their digests are the box's business, which checks every snapshot before it uses it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.bundle.format.manifest import BundleFile
from appliance.bundle.site.layout import Generation
from appliance.bundle.site.packages import altered_packages
from appliance.kit.errors import ApplianceError

_THREADS: Final = 2
_PART_BYTES: Final = 2**20
_BY_SIZE: Final = "models/"


def altered_files(generation: Generation) -> list[str]:
    """Paths in ``generation`` that are missing or not what was installed, in its environment too. Raises ``site_invalid``."""
    files = tuple(generation.manifest().files)
    with ThreadPoolExecutor(_THREADS) as pool:
        whole = pool.map(lambda file: _is_whole(generation.path / file.path, file), files, chunksize=64)
        found = [file.path for file, is_whole in zip(files, whole, strict=True) if not is_whole]
    return found + [f"venv/{path}" for path in altered_packages(generation)]


def check_whole(generation: Generation) -> None:
    """Refuse a generation that was altered. Raises ``site_invalid`` naming the first file."""
    found = altered_files(generation)
    if found:
        raise ApplianceError(
            "site_invalid", f"{generation.name} is not what was installed any more: {told(found)}; nothing was changed",
            hint="install the bundle of that release again, which repairs it (--allow-older and a reason when it is an older one)",
        )  # fmt: skip


def told(found: Sequence[str]) -> str:
    """The first of ``found``, and how many more."""
    return found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more files"


def _is_whole(path: Path, file: BundleFile) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size or status.st_uid != os.geteuid():
            return False
        return file.path.startswith(_BY_SIZE) or _digest(descriptor) == file.sha256
    except OSError:  # the disk cannot read it any more
        return False
    finally:
        os.close(descriptor)


def _digest(descriptor: int) -> str:
    digest = sha256()
    while data := os.read(descriptor, _PART_BYTES):
        digest.update(data)
    return digest.hexdigest()
