"""Reads a bundle file and drives its verification. Opens the file once; what was checked is read again from the same descriptor.

Owns: file access, threads for hashing, progress. Does not own: any verdict (``verify``), any byte of the format (``format``).
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import BLOCK, DELTA, END, MANIFEST, PROVENANCE, ROOT_CHAIN, Member, head_size, header, padded, padding
from appliance.bundle.format.manifest import MAX_CHUNK_BYTES, Manifest, invalid
from appliance.bundle.verify import BundleVerification, Pin, Policy, VerifiedBundle
from appliance.kit.errors import ApplianceError

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from one thread at a time."""

_LEAST_BYTES: Final = 3 * BLOCK + len(END)


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
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise refusal("bundle_incomplete", f"{self.path.name} ends at byte {offset + len(data)}: it was cut short")
        return data

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset``. Raises ``bundle_incomplete``."""
        if os.preadv(self._descriptor, [buffer], offset) != len(buffer):
            raise refusal("bundle_incomplete", f"{self.path.name} was cut short while it was read")

    def heads(self) -> Heads:
        """The heads. Raises ``bundle_invalid``, ``bundle_incomplete``."""
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
    except OSError as exc:
        raise ApplianceError("not_found", f"cannot open {path}: {exc.strerror}", hint="check the path and the rights") from exc
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
    heads = file.heads()
    verification.accept_roots(heads.root_chain)
    verification.accept_provenance(heads.provenance)
    verification.accept_manifest(heads.manifest)
    verification.accept_policy()
    members = verification.accept_layout(heads.end, file.size, heads.delta)
    if file.read(file.size - len(END), len(END)) != END:
        raise invalid(f"{file.path.name}: no end where the end must be")
    _hash_blobs(file, verification, members, threads or min(8, os.cpu_count() or 1), progress)
    return verification.finish()


def read_manifest_unverified(file: BundleFile) -> Manifest:
    """The manifest as it stands, for showing what a file claims to be. Nothing about it is proven."""
    from appliance.bundle.format.manifest import parse_manifest

    return parse_manifest(file.heads().manifest)


def _hash_blobs(file: BundleFile, verification: BundleVerification, members: Sequence[Member], threads: int, progress: Progress | None) -> None:
    """Threads take members in order; the first refusal stops all."""
    total = sum(member.size for member in members)
    done = 0
    waiting = iter(members)
    guard = threading.Lock()
    stop = threading.Event()

    def work() -> None:
        nonlocal done
        buffer = memoryview(bytearray(BLOCK + MAX_CHUNK_BYTES + BLOCK))
        while not stop.is_set():
            with guard:
                member = next(waiting, None)
            if member is None:
                return
            try:
                verification.accept_blob(member, _digest_of(file, member, buffer))
            except BaseException:
                stop.set()
                raise
            if progress is not None:
                with guard:
                    done += member.size
                    progress(done, total)

    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()


def _digest_of(file: BundleFile, member: Member, buffer: memoryview) -> str:
    """Header, content and padding in one read; the header and the padding must be exactly what they must be."""
    whole = buffer[: member.end - member.offset]
    file.read_into(whole, member.offset)
    content_end = BLOCK + member.size
    if whole[:BLOCK] != header(member.name, member.size) or whole[content_end:] != padding(member.size):
        raise refusal("bundle_altered", f"{member.name}: its header or padding was changed")
    return sha256(whole[BLOCK:content_end]).hexdigest()
