"""Cuts files into chunks by their content, so that an edit changes the chunks around it and no others. Streams; memory does not depend on the size of a file.

Owns: the parameters below. Does not own: what is done with the chunks.

Algorithm: FastCDC (Xia et al., USENIX ATC 2016) as in the package ``fastcdc``, whose version the lock pins: 32-bit gear hash with right shift,
normalised chunking level 1. Minimum 512 KiB, average 1 MiB, maximum 4 MiB; a file below 1 MiB is one chunk.

Invariants:
1. Boundaries depend on the bytes of the file only: not on the machine, on how much one read returns, or on the window it is read through.
2. A new version of the algorithm gives other boundaries, never other content: a reader needs no knowledge of it. Deltas would grow, once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fastcdc.fastcdc_cy import fastcdc_cy  # type: ignore[import-untyped]

from appliance.bundle.format.manifest import MAX_CHUNK_BYTES, Chunk
from appliance.kit.errors import ApplianceError

ALGORITHM: Final = "fastcdc-1.7.0/512KiB-1MiB-4MiB"
SMALLEST_BYTES: Final = 512 * 1024
AVERAGE_BYTES: Final = 1024 * 1024
LARGEST_BYTES: Final = MAX_CHUNK_BYTES
WHOLE_BELOW_BYTES: Final = 1024 * 1024
_WINDOW_BYTES: Final = 4 * LARGEST_BYTES


@dataclass(frozen=True, slots=True)
class ChunkedFile:
    """A file as chunks: length in bytes, sha256 (hex) of the whole, chunks in order."""

    size: int
    sha256: str
    chunks: tuple[Chunk, ...]


def chunk_file(path: Path) -> list[Chunk]:
    """The chunks of the file at ``path``. Raises as :func:`digest_file`."""
    return list(digest_file(path).chunks)


def digest_file(path: Path) -> ChunkedFile:
    """Size, digest and chunks of the file at ``path`` in one pass.

    Raises:
        ApplianceError: ``not_found`` when it cannot be read; ``conflict`` when it changes while it is read.
    """
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        pieces = _whole(descriptor) if size < WHOLE_BELOW_BYTES else _cut(descriptor)
        whole = sha256()
        chunks: list[Chunk] = []
        for piece in pieces:
            chunks.append(Chunk(sha256(piece).hexdigest(), len(piece)))
            if len(piece) < size:  # the digest of an only chunk is that of the file
                whole.update(piece)
    if sum(chunk.size for chunk in chunks) != size:
        raise ApplianceError("conflict", f"{path} changes while it is read", hint="stop whatever writes to it, then run the command again")
    return ChunkedFile(size, chunks[0].sha256 if len(chunks) == 1 else whole.hexdigest(), tuple(chunks))


def digest_bytes(data: bytes) -> ChunkedFile:
    """The same for a small content in memory, cut as a file with that content would be."""
    if not data:
        return ChunkedFile(0, sha256().hexdigest(), ())
    view = memoryview(data)
    pieces = [view] if len(data) < WHOLE_BELOW_BYTES else [view[piece.offset : piece.offset + piece.length] for piece in _boundaries(view)]
    return ChunkedFile(len(data), sha256(data).hexdigest(), tuple(Chunk(sha256(piece).hexdigest(), len(piece)) for piece in pieces))


def _whole(descriptor: int) -> Iterator[bytes]:
    data = b"".join(iter(lambda: os.read(descriptor, WHOLE_BELOW_BYTES), b""))
    if data:
        yield data


def _cut(descriptor: int) -> Iterator[memoryview]:
    """The pieces, each valid until the next is asked for. A boundary is taken only where the longest chunk fits into what was read."""
    window = memoryview(bytearray(_WINDOW_BYTES))
    held = 0
    ended = False
    while not ended:
        while held < len(window) and not ended:
            count = os.readv(descriptor, [window[held:]])
            held += count
            ended = count == 0
        start = 0
        for piece in _boundaries(window[:held]):
            if not ended and held - start < LARGEST_BYTES:
                break
            yield window[start : start + piece.length]
            start += piece.length
        window[: held - start] = window[start:held]
        held -= start


def _boundaries(view: memoryview) -> Iterator[Any]:
    return iter(fastcdc_cy(view, SMALLEST_BYTES, AVERAGE_BYTES, LARGEST_BYTES))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        raise ApplianceError("not_found", f"cannot read {path}: {exc.strerror}", hint="check the path and the rights") from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)
