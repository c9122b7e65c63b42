"""Reads a bundle file and drives its verification.

Owns: file access, threads for hashing, progress. Does not own: any verdict (``verify``), any byte of the format (``format``).

Between check and use: the file is opened once and read through that descriptor. Who writes into it or moves it away during the check is found by
its times; who does so later meets :meth:`BundleFile.read_blob`, which hashes the very bytes
that it returns. Whoever unpacks takes blobs from there only.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import (
    BLOB_FOLDER,
    BLOCK,
    DELTA,
    END,
    MANIFEST,
    PROVENANCE,
    ROOT_CHAIN,
    Member,
    head_size,
    header,
    padded,
    padding,
)
from appliance.bundle.format.manifest import MAX_CHUNK_BYTES, Manifest, invalid, parse_manifest
from appliance.bundle.verify import BundleVerification, Pin, Policy, VerifiedBundle
from appliance.kit.errors import ApplianceError

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from one thread at a time."""

_LEAST_BYTES: Final = 3 * BLOCK + len(END)
_BATCH_BYTES: Final = 4 * BLOCK + MAX_CHUNK_BYTES
_LARGE_BYTES: Final = 512 * 1024  # above, a blob is hashed alone: a system call costs nothing then
_MAGIC: Final = {
    b"\x1f\x8b": "compressed with gzip; a bundle never is",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; a bundle never is",
    b"\xfd7zXZ": "compressed with xz; a bundle never is",
    b"BZh": "compressed with bzip2; a bundle never is",
    b"PK": "a zip archive; a bundle never is",
    b'{"bundle_sha256"': "one part of a bundle; put the parts together with appliance bundle join",
}


@dataclass(frozen=True, slots=True)
class Heads:
    """The documents at the beginning of a bundle, as bytes; nothing about them is proven yet."""

    provenance: bytes
    root_chain: bytes
    manifest: bytes
    delta: bytes | None
    end: int


class BundleFile:
    """An open bundle file. Use :func:`open_bundle`."""

    def __init__(self, descriptor: int, path: Path, size: int) -> None:
        self._descriptor = descriptor
        self.path = path
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``offset``. Raises ``bundle_incomplete``."""
        with _readable(self.path):
            data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise refusal("bundle_incomplete", f"{self.path.name} ends at byte {offset + len(data)}: it was cut short")
        return data

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset``. Raises ``bundle_incomplete``."""
        with _readable(self.path):
            count = os.preadv(self._descriptor, [buffer], offset)
        if count != len(buffer):
            raise refusal("bundle_incomplete", f"{self.path.name} was cut short while it was read")

    def read_blob(self, member: Member) -> bytes:
        """The content of a blob, hashed again as it is read. Raises ``bundle_altered``, ``bundle_incomplete``."""
        content = self.read(member.content_offset, member.size)
        if sha256(content).hexdigest() != member.name.removeprefix(BLOB_FOLDER):
            raise refusal("bundle_altered", f"{member.name} was changed after it was checked")
        return content

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """Changes when somebody writes into the file or moves it: size and times."""
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def heads(self) -> Heads:
        """The heads. Raises ``bundle_invalid``, ``bundle_incomplete``."""
        beginning = self.read(0, min(16, self.size))
        for magic, what in _MAGIC.items():
            if beginning.startswith(magic):
                raise invalid(f"{self.path.name} is {what}")
        if self.size < _LEAST_BYTES or self.size % BLOCK:
            raise refusal("bundle_incomplete", f"{self.path.name} is not a whole bundle")
        contents: list[bytes] = []
        offset = 0
        for name in (PROVENANCE, ROOT_CHAIN, MANIFEST):
            content, offset = self._head(name, offset)
            contents.append(content)
        delta = None
        block = self.read(offset, BLOCK)
        if block.startswith(DELTA.encode()):
            delta, offset = self._head(DELTA, offset)
        return Heads(contents[0], contents[1], contents[2], delta, offset)

    def _head(self, name: str, offset: int) -> tuple[bytes, int]:
        size = head_size(self.read(offset, BLOCK), name)
        content = self.read(offset + BLOCK, size)
        if self.read(offset + BLOCK + size, padded(size) - size) != padding(size):
            raise invalid(f"{self.path.name}: bytes after {name} where none may be")
        return content, offset + BLOCK + padded(size)


@contextmanager
def open_bundle(path: Path) -> Iterator[BundleFile]:
    """Open a bundle for reading. Raises ``not_found``, ``bundle_invalid``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as exc:
        raise ApplianceError("not_found", f"cannot open {path}: {getattr(exc, 'strerror', exc)}", hint="check the path and the rights") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise invalid(f"{path} is not a file")
        yield BundleFile(descriptor, path, status.st_size)
    finally:
        os.close(descriptor)


def verify_bundle(file: BundleFile, pin: Pin, policy: Policy, *, threads: int | None = None, progress: Progress | None = None) -> VerifiedBundle:
    """Verify every byte of ``file``. ``threads``: how many hash at once (default: one per core, at most 8).

    Raises:
        ApplianceError: the first refusal.
    """
    verification = BundleVerification(pin, policy)
    before = file.fingerprint
    heads = file.heads()
    verification.accept_roots(heads.root_chain)
    verification.accept_provenance(heads.provenance)
    verification.accept_manifest(heads.manifest)
    verification.accept_policy()
    members = verification.accept_layout(heads.end, file.size, heads.delta)
    if file.read(file.size - len(END), len(END)) != END:
        raise invalid(f"{file.path.name}: no end where the end must be")
    _hash_blobs(file, verification, members, threads or min(8, len(os.sched_getaffinity(0))), progress)
    if file.fingerprint != before:
        raise refusal("bundle_altered", f"{file.path.name} was written to, moved or replaced while it was checked")
    return verification.finish()


def read_manifest_unverified(file: BundleFile) -> Manifest:
    """The manifest as it stands, for showing what a file claims to be. Nothing about it is proven."""
    return parse_manifest(file.heads().manifest)


def _hash_blobs(file: BundleFile, verification: BundleVerification, members: Sequence[Member], threads: int, progress: Progress | None) -> None:
    """Threads take members in order; the first refusal stops all."""
    total = sum(member.size for member in members)
    done = 0
    waiting = _batches(members)
    guard = threading.Lock()
    stop = threading.Event()

    def work() -> None:
        nonlocal done
        buffer = memoryview(bytearray(_BATCH_BYTES))
        try:
            while not stop.is_set():
                with guard:
                    batch = next(waiting, None)
                if batch is None:
                    return
                _check_batch(file, verification, batch, buffer)
                if progress is not None:
                    with guard:
                        done += sum(member.size for member in batch)
                        progress(done, total)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            done_work, _ = wait([pool.submit(work) for _ in range(threads)])
        finally:
            stop.set()
    errors = [error for future in done_work if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: not isinstance(error, ApplianceError)):
        raise error  # what other threads met after the refusal is only its consequence


def _batches(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Neighbours that fit into one buffer; a large blob is a batch of its own."""
    batch: list[Member] = []
    for member in members:
        if batch and (member.size > _LARGE_BYTES or member.end - batch[0].offset > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(member)
        if member.size > _LARGE_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_batch(file: BundleFile, verification: BundleVerification, batch: Sequence[Member], buffer: memoryview) -> None:
    """One read; every header and padding must be exactly what it must be, every content has its digest."""
    start = batch[0].offset
    whole = buffer[: batch[-1].end - start]
    file.read_into(whole, start)
    for member in batch:
        content_end = member.content_offset - start + member.size
        content = whole[content_end - member.size : content_end]
        if whole[member.offset - start : member.content_offset - start] != header(member.name, member.size) or whole[
            content_end : member.end - start
        ] != padding(member.size):
            raise refusal("bundle_altered", f"{member.name}: its header or padding was changed")
        verification.accept_blob(member, sha256(content).hexdigest())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise refusal("bundle_incomplete", f"{path.name} cannot be read from its medium: {exc.strerror}") from exc
