"""Moves bytes from one file to others while two digests follow, each on a thread of its own. A few buffers, whatever the size.

Owns: buffers, threads, the rule that bytes which are there already are compared and kept. Does not own: names, headers, verdicts.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from one thread."""

ReadInto = Callable[[memoryview, int], None]
"""Fills the view with what begins at the offset."""

_BUFFER_BYTES: Final = 2**20
_BUFFERS: Final = 8


class Stream:
    """One pass over many bytes. ``whole`` digests all of them, and each :meth:`copy` answers with the digest of its own. Use :func:`open_stream`."""

    def __init__(self, threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor], total: int, progress: Progress | None) -> None:
        self.kept = 0
        self._whole = sha256()
        self._there = bytearray(_BUFFER_BYTES)
        self._threads = threads
        self._free = deque(memoryview(bytearray(_BUFFER_BYTES)) for _ in range(_BUFFERS))
        self._busy: deque[tuple[memoryview, list[Future[None]]]] = deque()
        self._total = total
        self._done = 0
        self._progress = progress

    def copy(self, read: ReadInto, at: int, size: int, sink: int | None = None, to: int = 0) -> str:
        """Copy ``size`` bytes and return their sha256 (hex).

        Args:
            read: where the bytes come from.
            at: offset of the first one there.
            size: how many.
            sink: descriptor to write to; None only digests. Bytes that are there already and equal are not written again.
            to: offset of the first one in ``sink``.

        Raises:
            Exception: whatever ``read`` raises; the buffers are whole after it, so the stream may go on.
            OSError: what writing raises.
        """
        digest = sha256()
        there = 0 if sink is None else os.fstat(sink).st_size
        position = 0
        while position < size:
            buffer = self._buffer()
            view = buffer[: min(len(buffer), size - position)]
            try:
                read(view, at + position)
            except BaseException:
                self._free.append(buffer)
                raise
            self._busy.append((buffer, [self._threads[0].submit(self._whole.update, view), self._threads[1].submit(digest.update, view)]))
            if sink is not None:
                self._write(sink, view, to + position, there)
            position += len(view)
            self._done += len(view)
            if self._progress is not None:
                self._progress(self._done, self._total)
        return self._threads[1].submit(digest.hexdigest).result()

    def whole_digest(self) -> str:
        """sha256 (hex) of everything that was copied, in order."""
        return self._threads[0].submit(self._whole.hexdigest).result()

    def _buffer(self) -> memoryview:
        if not self._free:
            buffer, readers = self._busy.popleft()
            for reader in readers:
                reader.result()
            return buffer
        return self._free.popleft()

    def _write(self, sink: int, view: memoryview, to: int, there: int) -> None:
        if to + len(view) <= there:
            os.preadv(sink, [memoryview(self._there)[: len(view)]], to)
            if (self._there if len(view) == len(self._there) else self._there[: len(view)]) == view:  # bytearray compares by memcmp
                self.kept += len(view)
                return
        write_at(sink, view, to)


@contextmanager
def open_stream(total: int, progress: Progress | None = None) -> Iterator[Stream]:
    """A stream of ``total`` bytes (for the progress only)."""
    with ThreadPoolExecutor(1, thread_name_prefix="digest-whole") as first, ThreadPoolExecutor(1, thread_name_prefix="digest-part") as second:
        yield Stream((first, second), total, progress)


def write_at(descriptor: int, data: bytes | memoryview, to: int) -> None:
    """Write all of ``data`` at the offset ``to``."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, to)
        view, to = view[count:], to + count
