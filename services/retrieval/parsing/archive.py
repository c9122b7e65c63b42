"""Look at an Office file as the ZIP archive that it is, before any library unpacks it.

Invariants, checked before and while inflating:
  1. The central directory names no more entries, bytes or ratio than the limits allow.
  2. No entry is encrypted and no entry inflates past what the directory promised.
  3. No XML part has a document type declaration: Office never writes one, entity bombs need one.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

from services.retrieval.parsing import failures
from services.retrieval.parsing.limits import MIB, ParseLimits

_PIECE: Final = 256 * 1024
_MAX_DIRECTORY_BYTES: Final = 4 * MIB
_END_RECORD_BYTES: Final = 22
_ZIP64_BEFORE: Final = 76  # ZIP64 end record (56) and its locator (20), directly before the end record
_END_RECORD_WITHIN: Final = 65_536 + _END_RECORD_BYTES + _ZIP64_BEFORE
_ENCRYPTED_FLAG: Final = 0x1
_DOCTYPES: Final = tuple("<!DOCTYPE".encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be"))
_OVERLAP: Final = max(map(len, _DOCTYPES))
_XML_SUFFIXES: Final = (".xml", ".rels", ".vml")
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError)


def _opened(path: Path) -> zipfile.ZipFile:
    """Open an archive whose directory is small enough to be read into memory, also outside a worker.

    Raises:
        ApplianceError: ``document_bomb`` for a directory beyond any Office file's.
    """
    if _directory_bytes(path) > _MAX_DIRECTORY_BYTES:
        raise failures.bomb("its table of contents is larger than any Office file's")
    return zipfile.ZipFile(path)


def _directory_bytes(path: Path) -> int:
    """Size of the central directory by the end record that ``zipfile`` will believe (ZIP64 first); 0 without one."""
    with path.open("rb") as source:
        source.seek(max(0, path.stat().st_size - _END_RECORD_WITHIN))
        tail = source.read(_END_RECORD_WITHIN)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + _END_RECORD_BYTES:
        return 0
    size: int
    if at >= _ZIP64_BEFORE and tail[at - _ZIP64_BEFORE :].startswith(b"PK\x06\x06"):
        (size,) = struct.unpack_from("<Q", tail, at - _ZIP64_BEFORE + 40)
    else:
        (size,) = struct.unpack_from("<I", tail, at + 12)
    return size


def read_member(path: Path, name: str, limit: int) -> bytes | None:
    """First ``limit`` bytes of one entry; None when it is absent or unreadable."""
    try:
        with _opened(path) as archive, archive.open(name) as source:
            return source.read(limit)
    except (*_BROKEN, KeyError):
        return None


def is_encrypted(path: Path) -> bool:
    """Whether some entry needs a password; False when the directory cannot be read."""
    try:
        with _opened(path) as archive:
            return any(member.flag_bits & _ENCRYPTED_FLAG for member in archive.infolist())
    except _BROKEN:
        return False


def screen_archive(path: Path, limits: ParseLimits) -> None:
    """Check the invariants above for the file at ``path``.

    Raises:
        ApplianceError: ``document_bomb``, ``document_encrypted`` or ``document_corrupt``.
    """
    try:
        with _opened(path) as archive:
            members = archive.infolist()
            _check_directory(members, limits)
            for member in members:
                if member.filename.lower().endswith(_XML_SUFFIXES):
                    with archive.open(member) as source:
                        _check_xml(source, member)
    except _BROKEN as error:
        raise failures.corrupt("its ZIP container cannot be unpacked") from error


def _check_directory(members: list[zipfile.ZipInfo], limits: ParseLimits) -> None:
    if len(members) > limits.archive_members:
        raise failures.bomb(f"it holds {len(members):,} parts, more than {limits.archive_members:,}")
    if any(member.flag_bits & _ENCRYPTED_FLAG for member in members):
        raise failures.encrypted("the document")
    total = sum(member.file_size for member in members)
    if total > limits.archive_bytes:
        raise failures.bomb(f"it unpacks to {total:,} bytes, more than {limits.archive_bytes:,}")
    for member in members:
        ratio = member.file_size / max(1, member.compress_size)
        if member.file_size > limits.archive_ratio_from_bytes and ratio > limits.archive_ratio:
            raise failures.bomb(f"one of its parts is packed {ratio:,.0f} times")


def _check_xml(source: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Inflate one part piece by piece, counting, and look for a document type declaration."""
    seen = 0
    tail = b""
    while piece := source.read(_PIECE):
        seen += len(piece)
        if seen > member.file_size:
            raise failures.bomb("one of its parts is larger than its directory says")
        window = tail + piece
        if any(mark in window for mark in _DOCTYPES):
            raise failures.bomb("its XML declares entities, which Office files never do")
        tail = window[-_OVERLAP:]
