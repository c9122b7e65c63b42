"""Blobs in a folder, ``ab/abcdef…``: written to a temporary name, fsynced, renamed. A blob is either whole or absent."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError

_BLOCK_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class FolderBlobStore:
    """Implements ``BlobStore``. The folder must be on the same file system as its own ``tmp`` (it makes it inside)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        for left_over in self._temporary.iterdir():
            left_over.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the blob lies."""
        return self._folder / sha256[:2] / sha256

    async def put(self, source: Path, sha256: str) -> None:
        """See the port."""
        await asyncio.to_thread(self._put, source, sha256)

    async def remove(self, sha256: str) -> None:
        """See the port."""
        await asyncio.to_thread(self.path(sha256).unlink, missing_ok=True)

    async def digests(self) -> list[str]:
        """See the port."""
        return await asyncio.to_thread(lambda: [path.name for path in self._folder.glob("??/*") if _DIGEST.fullmatch(path.name)])

    def _put(self, source: Path, sha256: str) -> None:
        target = self.path(sha256)
        try:
            if not target.exists():
                temporary = self._copy(source, sha256)
                target.parent.mkdir(exist_ok=True)
                temporary.rename(target)
            # also when it was there: who renamed it may have been killed before these lines
            _sync_folder(target.parent)
            _sync_folder(self._folder)
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise ApplianceError("disk_full", "the disk is full", hint="free space under the appliance home, then upload again") from exc
            raise

    def _copy(self, source: Path, sha256: str) -> Path:
        digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self._temporary)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out, source.open("rb") as data:
                while block := data.read(_BLOCK_BYTES):
                    digest.update(block)
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != sha256:
                raise ApplianceError("invalid_request", "the file changed while it was read", hint="upload it again")
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
