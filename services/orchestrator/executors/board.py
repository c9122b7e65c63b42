"""A page of memory that a worker writes and the box reads: which job has the loop, how often that changed, and that the loop turns.

Only ever a hint: a worker may write anything there. Owns the layout (unsigned 64-bit words) and the anonymous file behind it.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

JOB: Final = 0
SERIAL: Final = 1
BEAT: Final = 2
BOARD_BYTES: Final = 4096
MOST_NOTES: Final = 8_192


class Board:
    """The box's end: the page, and a file for what the worker says at its start and when it crashes."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("board")
        os.ftruncate(self.descriptor, BOARD_BYTES)
        self._memory = mmap.mmap(self.descriptor, BOARD_BYTES)
        self.words = memoryview(self._memory).cast("Q")
        self.notes_descriptor = os.memfd_create("notes")

    @property
    def running(self) -> int:
        """Number of the job that has the worker's loop, 0 for none."""
        return self.words[JOB]

    def notes(self) -> str:
        """The end of what the worker left: why it did not start, or where each thread was when it crashed."""
        size = os.fstat(self.notes_descriptor).st_size
        return os.pread(self.notes_descriptor, MOST_NOTES, max(0, size - MOST_NOTES)).decode(errors="replace").strip()

    def close(self) -> None:
        """Give the memory back."""
        self.words.release()
        self._memory.close()
        os.close(self.descriptor)
        os.close(self.notes_descriptor)
