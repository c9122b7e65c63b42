"""Where the content of each blob is on this machine: a place in a file, or bytes in memory. Reads it for the writer."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from appliance.bundle.build.chunking import LARGEST_BYTES, ChunkedFile
from appliance.bundle.build.writer import ChangedBlobError
from appliance.bundle.format.manifest import Chunk

Place = tuple[Path | bytes, int]


class BlobSources:
    """Digest → source and offset. The first place of a blob is read by the writer; :meth:`check_repeats` reads the others."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._repeats: list[tuple[Chunk, Place]] = []
        self._culprit: Path | None = None

    def add(self, source: Path | bytes, cut: ChunkedFile) -> None:
        """Note the chunks of ``source``."""
        offset = 0
        for chunk in cut.chunks:
            if self._places.setdefault(chunk.sha256, (source, offset)) != (source, offset):
                self._repeats.append((chunk, (source, offset)))
            offset += chunk.size

    def read(self, blob: Chunk, view: memoryview) -> None:
        """Fill ``view`` with the blob. Raises :class:`ChangedBlobError` when its file is shorter now."""
        self._fill(blob, self._places[blob.sha256], view)

    def check_repeats(self, threads: int) -> None:
        """Hash every further place of a blob too: a file that was remembered wrongly must not pass because another one has that content.

        Raises:
            ChangedBlobError: naming the first that differs.
        """
        waiting = iter(self._repeats)

        def work(start: int) -> None:
            buffer = memoryview(bytearray(LARGEST_BYTES))
            for chunk, place in self._repeats[start::threads]:
                self._fill(chunk, place, buffer[: chunk.size])
                if sha256(buffer[: chunk.size]).hexdigest() != chunk.sha256:
                    self._blame(place)
                    raise ChangedBlobError(chunk)

        if next(waiting, None) is not None:
            with ThreadPoolExecutor(threads, thread_name_prefix="check") as pool:
                for future in [pool.submit(work, start) for start in range(threads)]:
                    future.result()

    def path_of(self, digest: str) -> Path | None:
        """The file whose content turned out not to have ``digest``."""
        source = self._culprit or self._places.get(digest, (b"", 0))[0]
        return source if isinstance(source, Path) else None

    def _fill(self, blob: Chunk, place: Place, view: memoryview) -> None:
        source, offset = place
        if isinstance(source, bytes):
            view[:] = source[offset : offset + blob.size]
            return
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as exc:
            self._blame(place)
            raise ChangedBlobError(blob) from exc
        try:
            count = 0
            while count < blob.size and (read := os.preadv(descriptor, [view[count:]], offset + count)):
                count += read
        finally:
            os.close(descriptor)
        if count != blob.size:
            self._blame(place)
            raise ChangedBlobError(blob)

    def _blame(self, place: Place) -> None:
        if isinstance(place[0], Path):
            self._culprit = place[0]
