"""Puts parts together again. Every part is checked, also when an earlier one was bad, so that the answer names all that must be copied again.

Owns: which files are parts of what, the checks, the joined file. Does not own: signatures (``bundle verify`` of the result).

Order: headers first (all parts of one bundle, each once, none missing), then one pass over the contents: digest of each, digest of the whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from stat import S_ISREG
from typing import Final

from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.manifest import invalid
from appliance.bundle.media.part_header import HEADER_BYTES, MAGIC, MAX_PARTS, PartHeader, parse_part_header
from appliance.bundle.media.streaming import Progress, ReadInto, Stream, open_stream
from appliance.bundle.media.unfinished import finish_file, hidden, require_space, sync_folder, unfinished_file
from appliance.kit.errors import ApplianceError

_MAX_FOLDER_ENTRIES: Final = 100_000
_COPY_AGAIN: Final = "copy these parts again from where the bundle was split, the others are good; then repeat the command"


@dataclass(frozen=True, slots=True)
class Joined:
    """What came out."""

    path: Path
    sha256: str
    size: int
    parts: int
    kept_bytes: int


class _UnreadableError(Exception):
    """The medium does not give a part back."""


@dataclass
class _Parts:
    """What was found: good headers by number; what is wrong with files, by name."""

    found: dict[int, tuple[PartHeader, Path]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> PartHeader:
        return next(iter(self.found.values()))[0]

    @property
    def missing(self) -> list[int]:
        return [number for number in range(1, self.first.parts + 1) if number not in self.found]

    @property
    def ordered(self) -> list[tuple[PartHeader, Path]]:
        return [self.found[number] for number in sorted(self.found)]


def join_parts(given: Sequence[Path], target: Path, *, progress: Progress | None = None) -> Joined:
    """Join part files, given by name or by the folder they are in, in any order and under any name.

    Raises:
        ApplianceError: ``bundle_incomplete`` (parts are missing), ``bundle_altered`` (parts are damaged), ``bundle_invalid`` (parts of several
            bundles, a part twice), ``not_found``, ``disk_full``, ``home_invalid``, ``conflict``.
    """
    parts = _collect(_files(given))
    if parts.missing or parts.damaged:
        with open_stream(_size(parts), progress) as stream:
            _digest_parts(parts, stream, None)
        raise _verdict(parts)
    _check_order(parts)
    if any(target.exists() and path.samefile(target) for _, path in parts.ordered):
        raise ApplianceError("invalid_request", f"{target.name} is one of the parts", hint="choose another output file")
    size = parts.first.bundle_size
    with unfinished_file(target) as descriptor, open_stream(size, progress) as stream:
        require_space(target.parent, size, os.fstat(descriptor).st_blocks * 512)
        _digest_parts(parts, stream, descriptor)
        if parts.damaged:
            raise _verdict(parts)
        if stream.whole_digest() != parts.first.bundle_sha256:
            raise refusal("bundle_altered", "every part is whole, but together they are not the bundle that their headers name")
        finish_file(descriptor, hidden(target), target, size)
        sync_folder(target.parent)
    return Joined(target, parts.first.bundle_sha256, size, parts.first.parts, stream.kept)


def check_parts(given: Sequence[Path], *, progress: Progress | None = None) -> tuple[list[PartHeader], list[int]]:
    """Check the parts that are at hand and write nothing: their headers, and the numbers that are not here. Raises as :func:`join_parts`."""
    parts = _collect(_files(given))
    with open_stream(_size(parts), progress) as stream:
        _digest_parts(parts, stream, None)
    if parts.damaged:
        raise _verdict(parts)
    return [header for header, _ in parts.ordered], parts.missing


def _files(given: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in given:
        files += _parts_in(path) if path.is_dir() else [path]
    if not files:
        raise ApplianceError("not_found", "there is no part in that folder", hint="give the folder into which the parts were copied, or the parts")
    if len(files) > MAX_PARTS:
        raise invalid(f"{len(files)} parts were given; {MAX_PARTS} is the most that one bundle has")
    return files


def _parts_in(folder: Path) -> list[Path]:
    """Files that are called like a part or begin like one."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, _MAX_FOLDER_ENTRIES + 1) if not entry.name.startswith(".") and entry.is_file())
    except OSError as exc:
        raise ApplianceError("not_found", f"cannot read {folder}: {exc.strerror}", hint="check the path and the rights") from exc
    if len(names) > _MAX_FOLDER_ENTRIES:
        raise invalid(f"{folder} has more than {_MAX_FOLDER_ENTRIES} files: give the parts by name")
    return [folder / name for name in names if ".part-" in name or _begins_like_a_part(folder / name)]


def _begins_like_a_part(path: Path) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _collect(files: Iterable[Path]) -> _Parts:
    """Read all headers. Refuses at once what no copying can mend: parts of several bundles, or one part twice."""
    parts = _Parts()
    for path in files:
        try:
            header = _read_header(path)
        except ApplianceError as error:
            if error.code == "not_found":
                raise
            parts.damaged[path.name] = error.message
            continue
        if parts.found and _bundle_of(header) != _bundle_of(parts.first):
            raise invalid(f"{path.name} is of another bundle, or of another split, than {next(iter(parts.found.values()))[1].name}")
        if header.part in parts.found:
            raise invalid(f"{path.name} and {parts.found[header.part][1].name} are both part {header.part}: give only one")
        parts.found[header.part] = (header, path)
    if not parts.found:
        raise _verdict(parts)
    return parts


def _bundle_of(header: PartHeader) -> tuple[str, int, int, str]:
    return header.bundle_sha256, header.bundle_size, header.parts, header.name


def _read_header(path: Path) -> PartHeader:
    with _opened(path) as descriptor:
        try:
            data = os.pread(descriptor, HEADER_BYTES, 0)
        except OSError as exc:
            raise invalid(f"cannot be read: {exc.strerror}") from exc
        header = parse_part_header(data)
        size = os.fstat(descriptor).st_size
    if size != HEADER_BYTES + header.size:
        raise invalid(f"has {size} bytes instead of {HEADER_BYTES + header.size}")
    return header


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise ApplianceError("not_found", f"cannot open {path}: {exc.strerror}", hint="check the path and the rights") from exc
    try:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            raise ApplianceError("not_found", f"{path} is not a file", hint="give part files, or the folder they are in")
        yield descriptor
    finally:
        os.close(descriptor)


def _size(parts: _Parts) -> int:
    return sum(header.size for header, _ in parts.ordered)


def _digest_parts(parts: _Parts, stream: Stream, sink: int | None) -> None:
    """Check every content; write it as well when there is a ``sink``. What is wrong goes into ``parts.damaged``."""
    for header, path in parts.ordered:
        with _opened(path) as descriptor:
            try:
                digest = stream.copy(_reader(descriptor), HEADER_BYTES, header.size, sink, header.offset)
            except _UnreadableError as exc:
                parts.damaged[path.name] = str(exc)
                continue
        if digest != header.sha256:
            parts.damaged[path.name] = f"its content has the sha256 {digest} instead of {header.sha256}"


def _reader(descriptor: int) -> ReadInto:
    def read(view: memoryview, offset: int) -> None:
        try:
            count = os.preadv(descriptor, [view], offset)
        except OSError as exc:
            raise _UnreadableError(f"cannot be read: {exc.strerror}") from exc
        if count != len(view):
            raise _UnreadableError("was cut short while it was read")

    return read


def _check_order(parts: _Parts) -> None:
    for (before, _), (header, path) in pairwise(parts.ordered):
        if before.offset + before.size != header.offset:
            raise invalid(f"{path.name} does not begin where the part before it ends: its header is wrong")


def _verdict(parts: _Parts) -> ApplianceError:
    """One refusal that names everything to copy again."""
    reasons = []
    if parts.damaged:
        names = [f"{name} ({reason})" for name, reason in sorted(parts.damaged.items())]
        reasons.append("damaged: " + _listed(names))
    if parts.found and parts.missing:
        reasons.append(f"missing of {parts.first.parts} parts of {parts.first.name}: {_listed(_ranges(parts.missing))}")
    code = "bundle_altered" if parts.damaged else "bundle_incomplete"
    return ApplianceError(code, "; ".join(reasons), hint=_COPY_AGAIN)


def _listed(items: list[str], most: int = 20) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _ranges(numbers: list[int]) -> list[str]:
    """``[1, 2, 3, 7]`` as ``1-3``, ``7``."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
