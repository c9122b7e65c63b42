"""How much one document may cost. One value, passed down; nothing else in parsing holds a number like these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Limits for one document in one worker.

    Attributes:
        file_bytes: size of the file itself.
        pages: pages, slides or sheets.
        seconds: wall clock for a document without recognition.
        ocr_page_seconds: wall clock allowed, and added to ``seconds``, for each recognised page.
        total_seconds: wall clock that no document may pass, recognition included.
        table_seconds: time that looking for tables in one PDF may take; the rest is read as plain text.
        address_space_bytes: RLIMIT_AS of a worker.
        open_files: RLIMIT_NOFILE of a worker.
        written_file_bytes: RLIMIT_FSIZE of a worker (it has no business writing files).
        archive_members: entries of an Office file.
        archive_bytes: inflated size of all entries together.
        archive_ratio: inflated / packed, for entries above ``archive_ratio_from_bytes``.
        archive_ratio_from_bytes: below this size an entry may have any ratio.
        cells: table cells of a workbook or CSV, empty ones between filled ones included.
        text_characters: Markdown characters of the whole document.
        result_bytes: size of the answer that the box accepts from a worker.
        warnings: warnings kept; the rest is counted in one last warning.
    """

    file_bytes: int = 64 * MIB
    pages: int = 5_000
    seconds: float = 60.0
    ocr_page_seconds: float = 30.0
    total_seconds: float = 3_600.0
    table_seconds: float = 25.0
    address_space_bytes: int = 1_536 * MIB
    open_files: int = 64
    written_file_bytes: int = 1 * MIB
    archive_members: int = 10_000
    archive_bytes: int = 512 * MIB
    archive_ratio: int = 200
    archive_ratio_from_bytes: int = 8 * MIB
    cells: int = 2_000_000
    text_characters: int = 20_000_000
    result_bytes: int = 96 * MIB
    warnings: int = 500


DEFAULT_LIMITS: Final = ParseLimits()
