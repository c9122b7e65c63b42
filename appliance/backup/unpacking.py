"""Reads a backup file. Owns the order of trust: shape, then signature, then contents; and that nothing but plain files comes out.

Invariants:
1. Every byte is accounted for: headers, padding and end must be what the index makes them, contents must have its digests. Nothing is parsed but
   the size in a header (then the header is computed again and compared) and the index.
2. Nothing is written before the index is known to be signed. What is written is at most as long as the backup file.
3. Memory does not grow with the contents, only with the index (see ``index``). Runs of zeros become holes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from appliance.audit.durable_files import is_disk_full
from appliance.audit.signing import PUBLIC_NAME
from appliance.backup.archive import BLOCK_BYTES, member_name, part_sizes
from appliance.backup.index import INDEX, MAX_FILES, MAX_INDEX_BYTES, MIN_PART_BYTES, Index, SavedFile, read_index, refused
from appliance.bundle.format.container import BLOCK, END, header, padded, padding
from appliance.kit.errors import ApplianceError

_ZEROS: Final = bytes(BLOCK_BYTES)
_MAX_KEY_BYTES: Final = 64 * 1024
_NOT_A_BACKUP: Final = "is not a backup of this release's format"


def unpack(archive: Path, folder: Path, public: Ed25519PublicKey | None) -> Index:
    """Unpack ``archive`` into the empty ``folder`` and check every byte against the signed index.

    Args:
        archive: the backup file.
        folder: exists and is empty, and only this process writes into it.
        public: key that must have signed it; None = the audit key inside the backup (proves that it is whole, not where it comes from).

    Raises:
        ApplianceError: ``bundle_invalid``, ``bundle_altered``, ``bundle_unsigned``, ``disk_full``. The folder then holds rubbish to be deleted.
    """
    with _reading(archive) as reader:
        offset, body = reader.index_member()
        signed = read_index(body)
        index = signed.index
        if _end_of_members(index) != offset:
            raise refused("bundle_altered", f"{archive.name}: its members are not those of its index")
        index = signed.check(public or reader.own_key(index))
        try:
            _write_all(reader, index, folder)
        except OSError as exc:
            if is_disk_full(exc):
                raise ApplianceError("disk_full", f"no space to unpack {archive.name}", hint="free space, or name another --home") from exc
            raise ApplianceError("home_invalid", f"cannot unpack {archive.name}: {exc.strerror or exc}", hint="name another --home") from exc
    return index


@dataclass(frozen=True, slots=True)
class _Reader:
    name: str
    descriptor: int
    size: int

    def at(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises ``bundle_invalid`` when they are not there, ``not_found`` when the medium does not give them."""
        parts = []
        while count:
            try:
                block = os.pread(self.descriptor, count, offset)
            except OSError as exc:
                raise _unreadable(self.name, exc) from exc
            if not block:
                raise refused("bundle_invalid", f"{self.name} was cut short")
            parts.append(block)
            offset, count = offset + len(block), count - len(block)
        return b"".join(parts)

    def index_member(self) -> tuple[int, bytes]:
        """Offset of the last member and its content; from header to header, each compared with the one that must be there."""
        offset = members = 0
        while True:
            block = self.at(offset, BLOCK)
            size = _stated_size(block)
            if size is not None and size <= MAX_INDEX_BYTES and block == header(INDEX, size):
                break
            members += 1
            if size is None or members > MAX_FILES + self.size // MIN_PART_BYTES or block != header(member_name(members), size):
                raise refused("bundle_invalid", f"{self.name} {_NOT_A_BACKUP}, or was cut short")
            offset += BLOCK + padded(size)
        if offset + BLOCK + padded(size) + len(END) != self.size or self.at(offset + BLOCK + size, self.size - offset - BLOCK - size).strip(b"\0"):
            raise refused("bundle_invalid", f"{self.name} does not end after its index")
        return offset, self.at(offset + BLOCK, size)

    def own_key(self, index: Index) -> Ed25519PublicKey:
        """The public audit key in the backup. Raises ``bundle_unsigned``."""
        for file, parts in _laid_out(index):
            if file.path == f"keys/{PUBLIC_NAME}" and file.size <= _MAX_KEY_BYTES:
                data = b"".join(self.at(offset + BLOCK, size) for _, offset, size in parts)
                try:
                    key = load_pem_public_key(data)
                except (ValueError, UnsupportedAlgorithm):
                    break
                if isinstance(key, Ed25519PublicKey):
                    return key
        raise refused("bundle_unsigned", "the backup has no key that could vouch for it")

    def copy(self, offset: int, size: int, out: IO[bytes], seen: Callable[[bytes], None]) -> None:
        """Copy a content and show it to ``seen``; a block of zeros becomes a hole."""
        while size:
            block = self.at(offset, min(size, BLOCK_BYTES))
            seen(block)
            if block == _ZEROS:
                out.seek(len(block), os.SEEK_CUR)
            else:
                out.write(block)
            offset, size = offset + len(block), size - len(block)


@contextmanager
def _reading(archive: Path) -> Iterator[_Reader]:
    try:
        descriptor = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise _unreadable(str(archive), exc) from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise refused("bundle_invalid", f"{archive} is not a file")
        yield _Reader(archive.name, descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _laid_out(index: Index) -> Iterator[tuple[SavedFile, Iterator[tuple[int, int, int]]]]:
    """Every file with its members: number, offset of the header, size. The members of a file must be taken before the next file, or not at all."""
    number, offset = 1, 0
    for file in index.files:
        yield file, _members(file, index.part_bytes, number, offset)
        number, offset = number + _count(file, index.part_bytes), offset + _length(file, index.part_bytes)


def _members(file: SavedFile, part_bytes: int, number: int, offset: int) -> Iterator[tuple[int, int, int]]:
    for size in part_sizes(file.size, part_bytes):
        yield number, offset, size
        number, offset = number + 1, offset + BLOCK + padded(size)


def _count(file: SavedFile, part_bytes: int) -> int:
    return max(1, -(-file.size // part_bytes))


def _length(file: SavedFile, part_bytes: int) -> int:
    full, rest = divmod(file.size, part_bytes)
    return full * (BLOCK + padded(part_bytes)) + (BLOCK + padded(rest) if rest or not full else 0)


def _end_of_members(index: Index) -> int:
    return sum(_length(file, index.part_bytes) for file in index.files)


def _write_all(reader: _Reader, index: Index, folder: Path) -> None:
    made = {PurePosixPath(".")}
    for file, parts in _laid_out(index):
        for parent in reversed(PurePosixPath(file.path).parents):
            if parent not in made:
                (folder / parent).mkdir(mode=0o700)
                made.add(parent)
        _write(reader, file, parts, folder / file.path)


def _write(reader: _Reader, file: SavedFile, parts: Iterator[tuple[int, int, int]], target: Path) -> None:
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as out:
        for number, offset, size in parts:
            end = offset + BLOCK + size
            if reader.at(offset, BLOCK) != header(member_name(number), size) or reader.at(end, len(padding(size))) != padding(size):
                raise refused("bundle_altered", f"{file.path} is not as the signed index says")
            reader.copy(offset + BLOCK, size, out, digest.update)
        out.truncate(file.size)
        os.fchmod(out.fileno(), file.mode & 0o755)
    if digest.hexdigest() != file.sha256:
        raise refused("bundle_altered", f"{file.path} is not as the signed index says")


def _stated_size(block: bytes) -> int | None:
    """What the size field says when it is 11 octal digits; the caller computes the header for it and compares."""
    digits = block[124:135]
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else None


def _unreadable(name: str, exc: OSError) -> ApplianceError:
    return ApplianceError("not_found", f"cannot read {name}: {exc.strerror or exc}", hint="check the path and the medium")
