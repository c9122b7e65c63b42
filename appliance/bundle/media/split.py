"""Cuts a bundle into parts that fit on media. One pass: the digests of the whole and of each part follow the copying.

Owns: how many parts and where they begin; their files. Does not own: signatures (a part is checked by its digest, the bundle by ``verify``).

Invariants:
1. Parts get their names when all of them are whole and on the disk. Until then they lie in a hidden folder; a run after a kill compares what
   is there with the bundle and writes only what differs.
2. The same bundle and size give the same parts, byte for byte.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.bundle.media.part_header import HEADER_BYTES, MAX_PARTS, PartHeader, check_name, part_name
from appliance.bundle.media.streaming import Progress, Stream, open_stream, write_at
from appliance.bundle.media.unfinished import finish_file, require_space, sync_folder, unfinished_folder
from appliance.bundle.reader import BundleFile, open_bundle
from appliance.kit.errors import ApplianceError

LEAST_PART_BYTES: Final = 64 * 1024
_SIZE: Final = re.compile(r"([1-9][0-9]{0,15})\s?(?:([KMGT])(iB|B)?|B)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Split:
    """What came out: sha256 (hex) of the bundle, the parts in order, how many bytes of an earlier run were kept."""

    sha256: str
    folder: Path
    parts: tuple[PartHeader, ...]
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class _Piece:
    part: int
    parts: int
    offset: int
    size: int


def parse_size(text: str) -> int:
    """``3900M``, ``4G``, ``700MiB`` (powers of 1024) or ``4GB`` (powers of 1000) in bytes. Raises ``invalid_request``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ApplianceError("invalid_request", f"{text[:40]!r} is not a size", hint="write it like 3900M, 4G, 700MiB or 4GB")
    number, unit, suffix = match.groups()
    step = 1000 if (suffix or "").upper() == "B" else 1024
    return int(number) * int(step ** (" KMGT".index(unit.upper()) if unit else 0))


def split_bundle(source: Path, folder: Path, part_bytes: int, *, progress: Progress | None = None) -> Split:
    """Write the parts of ``source`` into ``folder``.

    Args:
        source: a bundle or a delta.
        folder: made when it is not there.
        part_bytes: longest part file, its header included.
        progress: told of bytes copied.

    Raises:
        ApplianceError: ``invalid_request`` (size), ``not_found``, ``bundle_invalid``, ``bundle_incomplete`` (source is no bundle),
            ``disk_full``, ``home_invalid``, ``conflict`` (another split writes there).
    """
    with open_bundle(source) as bundle:
        bundle.heads()  # no bundle, no parts
        pieces = _plan(bundle.size, part_bytes)
        name = _checked_name(source.name)
        with unfinished_folder(folder / f"{name}.parts") as work, open_stream(bundle.size, progress) as stream:
            _prepare(work, folder, name, pieces, bundle.size)
            digests = [_write_content(bundle, piece, work, stream) for piece in pieces]
            whole = stream.whole_digest()
            headers = tuple(
                PartHeader(name, whole, bundle.size, piece.part, piece.parts, piece.offset, piece.size, digest)
                for piece, digest in zip(pieces, digests, strict=True)
            )
            _name_parts(work, folder, headers)
    return Split(whole, folder, headers, stream.kept)


def _plan(size: int, part_bytes: int) -> list[_Piece]:
    if part_bytes < LEAST_PART_BYTES:
        raise ApplianceError("invalid_request", f"parts of {part_bytes} bytes are too small", hint="use at least 64K; 3900M fits on FAT media")
    step = part_bytes - HEADER_BYTES
    parts = -(-size // step)
    if parts > MAX_PARTS:
        least = -(-size // MAX_PARTS) + HEADER_BYTES
        raise ApplianceError(
            "invalid_request", f"that makes {parts} parts; {MAX_PARTS} is the most", hint=f"use --size {-(-least // 2**20)}M or more"
        )
    return [_Piece(index + 1, parts, index * step, min(step, size - index * step)) for index in range(parts)]


def _checked_name(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as exc:
        raise ApplianceError("invalid_request", f"the bundle's file name cannot be that of parts: {exc}", hint="rename the file") from exc


def _work_file(work: Path, part: int) -> Path:
    return work / f"{part:04}"


def _prepare(work: Path, folder: Path, name: str, pieces: list[_Piece], size: int) -> None:
    """Take up what an earlier run with the same names has left, finished or not; remove the rest; make sure that everything fits."""
    wanted = {_work_file(work, piece.part).name for piece in pieces}
    for path in work.iterdir():
        if path.name not in wanted or path.is_symlink() or not path.is_file():
            path.unlink()
    for piece in pieces:
        finished, path = folder / part_name(name, piece.part, piece.parts), _work_file(work, piece.part)
        if finished.is_file() and not finished.is_symlink() and not path.exists():
            finished.rename(path)
    there = sum(path.stat().st_blocks * 512 for path in work.iterdir())
    require_space(work, size + len(pieces) * HEADER_BYTES, there)


def _write_content(bundle: BundleFile, piece: _Piece, work: Path, stream: Stream) -> str:
    with _work_file(work, piece.part).open("r+b" if _work_file(work, piece.part).exists() else "w+b", buffering=0) as file:
        digest = stream.copy(bundle.read_into, piece.offset, piece.size, file.fileno(), HEADER_BYTES)
        os.fsync(file.fileno())
    return digest


def _name_parts(work: Path, folder: Path, headers: tuple[PartHeader, ...]) -> None:
    for header in headers:
        path = _work_file(work, header.part)
        with path.open("r+b", buffering=0) as file:
            write_at(file.fileno(), header.to_bytes(), 0)
            finish_file(file.fileno(), path, folder / header.file_name, HEADER_BYTES + header.size)
    sync_folder(folder)
