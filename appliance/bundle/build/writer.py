"""Writes a bundle file: heads, blobs in their order, end. Streams through a few buffers; appears whole or not at all.

Owns: the file and its unfinished form beside it (``.<name>.unfinished``). Does not own: what the heads say, where blobs come from.

Invariants:
1. Every blob is hashed as it is written; a digest that does not fit ends the writing, so no bundle exists that its own verification refuses.
2. The name appears by ``rename`` after ``fsync``. A run that was killed leaves the unfinished form, and the next with the same heads goes on
   from it: what is there is hashed before it is kept. A run that failed leaves nothing.
3. One writer at a time per name (flock on the unfinished form).
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from appliance.audit.durable_files import is_disk_full, sync_folder
from appliance.bundle.format.container import BLOB_FOLDER, BLOCK, END, Member, header, lay_out, padding
from appliance.bundle.format.manifest import MAX_CHUNK_BYTES, Chunk
from appliance.bundle.reader import Progress
from appliance.kit.errors import ApplianceError

ReadBlob = Callable[[Chunk, memoryview], None]
"""Fills the view, which is as long as the blob, with its content; called from several threads."""

_SPARE_BUFFERS: Final = 2
_FLUSH_SECONDS: Final = 0.25
_MODE: Final = 0o644  # a bundle is signed, not secret


class ChangedBlobError(ApplianceError):
    """What was read for ``blob`` has another digest."""

    def __init__(self, blob: Chunk) -> None:
        super().__init__("conflict", f"the content of blob {blob.sha256} has changed", hint="stop whatever changes the inputs, then run again")
        self.blob = blob


def write_bundle(
    target: Path,
    heads: Sequence[tuple[str, bytes]],
    blobs: Sequence[Chunk],
    read: ReadBlob,
    *,
    threads: int = 2,
    progress: Progress | None = None,
    whole_digest: bool = True,
) -> str:
    """Write the bundle ``target`` and return its sha256 (hex), or nothing without ``whole_digest``.

    Args:
        target: the file; replaced when it exists.
        heads: name and content of the members before the blobs, in their order.
        blobs: distinct chunks in the order of the container.
        read: where a blob's content comes from.
        threads: how many read, hash and write at once.
        progress: told of bytes written.
        whole_digest: hash the file as a whole too; costs as much as hashing the blobs.

    Raises:
        ApplianceError: ``disk_full``, ``home_invalid`` (folder cannot be written), ``conflict`` (another writer; :class:`ChangedBlobError`).
    """
    front = b"".join(header(name, len(content)) + content + padding(len(content)) for name, content in heads)
    members = lay_out(len(front), blobs)
    size = (members[-1].end if members else len(front)) + len(END)
    temporary = target.with_name(f".{target.name}.unfinished")
    with _translated(target), _unfinished(temporary) as descriptor:
        there = _usable_bytes(descriptor, front, size)
        if free_bytes(target.parent) < size - os.fstat(descriptor).st_blocks * 512:
            raise OSError(errno.ENOSPC, "not enough space")
        _write_at(descriptor, memoryview(front), 0)
        copy = _Copy(descriptor, read, there, sum(blob.size for blob in blobs), progress, threads, in_order=whole_digest)
        copy.whole.update(front)
        with _flushing(descriptor):
            copy.run(list(zip(members, blobs, strict=True)))
        _write_at(descriptor, memoryview(END), size - len(END))
        copy.whole.update(END)
        os.fchmod(descriptor, _MODE)
        os.fsync(descriptor)
        temporary.replace(target)
        sync_folder(target.parent)
    return copy.whole.hexdigest() if whole_digest else ""


def free_bytes(folder: Path) -> int:
    """Space that this user may still fill."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class _Copy:
    """Threads take members in order; the digest of the whole file follows in order behind them."""

    def __init__(self, descriptor: int, read: ReadBlob, there: int, total: int, progress: Progress | None, threads: int, *, in_order: bool) -> None:
        self.whole = sha256()
        self._in_order = in_order
        self._descriptor = descriptor
        self._read = read
        self._there = there
        self._total = total
        self._progress = progress
        self._threads = threads
        self._done = 0
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._finished: dict[int, tuple[memoryview, memoryview]] = {}
        self._next_to_hash = 0
        self._hashing = False

    def run(self, work: Sequence[tuple[Member, Chunk]]) -> None:
        for _ in range(self._threads + _SPARE_BUFFERS):
            self._free.put(memoryview(bytearray(BLOCK + MAX_CHUNK_BYTES + BLOCK)))
        waiting = iter(enumerate(work))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="write") as pool:
            try:
                for future in [pool.submit(self._work, waiting) for _ in range(self._threads)]:
                    future.result()
            except BaseException:
                self._stop.set()
                raise

    def _work(self, waiting: Iterator[tuple[int, tuple[Member, Chunk]]]) -> None:
        while True:
            buffer = self._free.get()  # before the member: the first unfinished member always has a buffer
            with self._guard:
                index, (member, blob) = next(waiting, (-1, (Member("", 0, 0), Chunk("", 0))))
            if index < 0 or self._stop.is_set():
                self._free.put(buffer)
                return
            try:
                image = buffer[: member.end - member.offset]
                if not self._is_there(member, image):
                    self._copy(member, blob, image)
                self._count(blob.size)
                if self._in_order:
                    self._hash_in_order(index, buffer, image)
                else:
                    self._free.put(buffer)
            except BaseException:
                self._stop.set()
                self._free.put(buffer)  # nobody may wait for it
                raise

    def _is_there(self, member: Member, image: memoryview) -> bool:
        """Whether an earlier run wrote this member; then it is in ``image``."""
        if member.end > self._there:
            return False
        expected = header(member.name, member.size)
        if os.pread(self._descriptor, BLOCK, member.offset) != expected or os.preadv(self._descriptor, [image], member.offset) != len(image):
            return False
        content_end = BLOCK + member.size
        digest = sha256(image[BLOCK:content_end]).hexdigest()
        return digest == member.name.removeprefix(BLOB_FOLDER) and image[content_end:] == padding(member.size)

    def _copy(self, member: Member, blob: Chunk, image: memoryview) -> None:
        content_end = BLOCK + member.size
        image[:BLOCK] = header(member.name, member.size)
        image[content_end:] = padding(member.size)
        self._read(blob, image[BLOCK:content_end])
        if sha256(image[BLOCK:content_end]).hexdigest() != blob.sha256:
            raise ChangedBlobError(blob)
        _write_at(self._descriptor, image, member.offset)

    def _count(self, size: int) -> None:
        with self._guard:
            self._done += size
            if self._progress is not None:
                self._progress(self._done, self._total)

    def _hash_in_order(self, index: int, buffer: memoryview, image: memoryview) -> None:
        """One thread at a time follows with the digest of the file; the others go on copying."""
        with self._guard:
            self._finished[index] = (buffer, image)
            if self._hashing:
                return
            self._hashing = True
        while True:
            with self._guard:
                following = self._finished.pop(self._next_to_hash, None)
                if following is None:
                    self._hashing = False
                    return
                self._next_to_hash += 1
            self.whole.update(following[1])
            self._free.put(following[0])


@contextmanager
def _flushing(descriptor: int) -> Iterator[None]:
    """The disk works while the rest is hashed, instead of all at the end."""
    finished = threading.Event()

    def flush() -> None:
        while not finished.wait(_FLUSH_SECONDS):
            with suppress(OSError):  # the last fsync says it to the caller
                os.fdatasync(descriptor)

    thread = threading.Thread(target=flush, name="flush", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _usable_bytes(descriptor: int, front: bytes, size: int) -> int:
    """How much of the unfinished file may hold what is wanted: all of it when it begins with the same heads, else nothing; then it is emptied."""
    there = os.fstat(descriptor).st_size
    if there > size or os.pread(descriptor, len(front), 0) != front:
        os.ftruncate(descriptor, 0)
        return 0
    return there


@contextmanager
def _unfinished(path: Path) -> Iterator[int]:
    """The unfinished file, held alone; removed when the writing fails, left when it is interrupted."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise _busy(path) from exc
        if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:  # its writer has just finished
            raise _busy(path)
        try:
            yield descriptor
        except Exception:
            with suppress(OSError):
                path.unlink()
            raise
    finally:
        os.close(descriptor)


def _busy(path: Path) -> ApplianceError:
    return ApplianceError("conflict", f"another process is writing {path.name}", hint="wait for it, or choose another output file")


@contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            hint = "free space there, or write to another disk; nothing was left behind"
            raise ApplianceError("disk_full", f"no space to write {target.name} in {target.parent}", hint=hint) from error
        raise ApplianceError("home_invalid", f"cannot write {target}: {error.strerror}", hint=f"check the folder {target.parent}") from error
