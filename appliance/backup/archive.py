"""The backup file: ustar members ``files/00000001`` … and last the signed index. Owns how it is written, not what goes in.

Invariants:
1. Headers are computed (``bundle.format.container``): names are numbers, so nothing of a file of the home stands in a header, and a reader compares
   headers instead of interpreting them. What is in which member says the index alone.
2. Writing streams: memory does not grow with the files. A file longer than ``part_bytes`` goes into several members.
3. A backup file appears whole or not at all: written beside its place, fsynced, renamed, mode 0600 (it holds the keys of the box).
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.durable_files import is_disk_full, sync_folder
from appliance.backup.index import INDEX, MAX_PART_BYTES, SCHEMA_VERSION, Facts, Index, SavedFile, check_home_path, sign_index
from appliance.bundle.format.container import END, header, padding
from appliance.kit.errors import ApplianceError

BLOCK_BYTES: Final = 1 << 20


def member_name(number: int) -> str:
    """Name of the ``number``-th member, from 1 on."""
    return f"files/{number:08d}"


def part_sizes(size: int, part_bytes: int) -> Iterator[int]:
    """Sizes of the members that a file of ``size`` bytes takes; an empty one takes one, too."""
    yield min(size, part_bytes)
    for start in range(part_bytes, size, part_bytes):
        yield min(size - start, part_bytes)


@dataclass(slots=True)
class ArchiveWriter:
    """Adds files one by one; :meth:`close` writes the index."""

    out: IO[bytes]
    part_bytes: int = MAX_PART_BYTES
    files: list[SavedFile] = field(default_factory=list)
    _members: int = 0

    def add(self, path: str, source: Path, size: int | None = None) -> SavedFile | None:
        """Copy ``source`` (its first ``size`` bytes; None = all) in as ``path``. None, and nothing is added, when it is gone or no plain file.

        Raises:
            ApplianceError: ``home_invalid`` when it cannot be read.
        """
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError) or source.is_symlink():
                return None
            raise _unreadable(path, exc.strerror or str(exc)) from exc
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            return self._add(path, stream, status.st_size if size is None else size, status.st_mode & 0o777)

    def add_bytes(self, path: str, data: bytes) -> SavedFile:
        """Add a small file, mode 0600."""
        return self._add(path, io.BytesIO(data), len(data), 0o600)

    def close(self, facts: Facts, key: Ed25519PrivateKey) -> Index:
        """Sign and append the index."""
        index = Index(SCHEMA_VERSION, self.part_bytes, facts, tuple(self.files))
        body = sign_index(index, key)
        self.out.write(header(INDEX, len(body)))
        self.out.write(body)
        self.out.write(padding(len(body)) + END)
        return index

    def _add(self, path: str, stream: IO[bytes], size: int, mode: int) -> SavedFile:
        try:
            check_home_path(path)
        except ValueError as exc:
            raise _unreadable(path, str(exc)) from exc
        digest = hashlib.sha256()
        for part in part_sizes(size, self.part_bytes):
            self._members += 1
            self.out.write(header(member_name(self._members), part))
            left = part
            while left:
                block = _read(stream, min(left, BLOCK_BYTES), path)
                digest.update(block)
                self.out.write(block)
                left -= len(block)
            self.out.write(padding(part))
        self.files.append(SavedFile(path, size, digest.hexdigest(), mode))
        return self.files[-1]


@contextmanager
def writing_archive(target: Path, *, part_bytes: int = MAX_PART_BYTES) -> Iterator[ArchiveWriter]:
    """A writer for ``target``, which appears when the block ends well.

    Raises:
        ApplianceError: ``disk_full``, ``home_invalid``.
    """
    temporary = target.with_name(f".{target.name}.unfinished")
    try:
        temporary.unlink(missing_ok=True)  # of a backup that was killed
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=BLOCK_BYTES) as file:
            os.fchmod(descriptor, 0o600)
            yield ArchiveWriter(file, part_bytes)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        if is_disk_full(exc):
            raise ApplianceError("disk_full", f"no space for {target}", hint="name another disk with -o") from exc
        raise ApplianceError("home_invalid", f"cannot write {target}: {exc.strerror or exc}", hint="name another place with -o") from exc
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(stream: IO[bytes], count: int, path: str) -> bytes:
    try:
        block = stream.read(count)
    except OSError as exc:
        raise _unreadable(path, exc.strerror or str(exc)) from exc
    if not block:
        raise _unreadable(path, "it became shorter while it was copied")
    return block


def _unreadable(path: str, reason: str) -> ApplianceError:
    hint = "correct the name and the rights of the file (it must belong to the user of the box), then repeat"
    return ApplianceError("home_invalid", f"cannot back up {path[:200]}: {reason}", hint=hint)
