"""Tables of PDF pages: a cheap look for ruling lines first, pdfplumber only where it finds a grid.

PDFium counts path objects in microseconds; pdfplumber needs about 50 ms a page, so text pages never pay for it.
Tables without vertical rules (columns by white space only) are left as text.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pypdfium2.raw as pdfium

from services.retrieval.parsing import markdown
from services.retrieval.parsing.pdf_lines import Line

_OBJECTS_SEEN: Final = 6_000
_FORM_DEPTH: Final = 2
_THIN: Final = 3.0
_LONG: Final = 8.0
_GRID_LINES: Final = 2
_GRID_SEGMENTS: Final = 12
_CELL_RECTANGLES: Final = 4
_TOO_MANY_PATHS: Final = 4_000
_PATH: Final = 2
_FORM: Final = 5


@dataclass(frozen=True, slots=True)
class FoundTable:
    """One table: its box in points from the lower left corner, and its Markdown."""

    left: float
    right: float
    bottom: float
    top: float
    markdown: str

    def holds(self, line: Line) -> bool:
        """Whether the middle of a line lies inside the table."""
        x, y = line.middle
        return self.left - 2 <= x <= self.right + 2 and self.bottom - 1 <= y <= self.top + 1


def count_rules(page: Any) -> tuple[bool, bool]:
    """Whether a page has ruling lines that may form a grid, and whether there are too many paths to look at."""
    horizontal = vertical = cells = paths = 0
    dense = False
    box = [ctypes.c_float() for _ in range(4)]
    for item in _paths(page):
        paths += 1
        pdfium.FPDFPageObj_GetBounds(item, *box)
        left, bottom, right, top = (side.value for side in box)
        wide, high = right - left, top - bottom
        if high <= _THIN and wide >= _LONG:
            horizontal += 1
        elif wide <= _THIN and high >= _LONG:
            vertical += 1
        elif wide >= _LONG and high >= _LONG:
            cells += 1
            dense = dense or pdfium.FPDFPath_CountSegments(item) >= _GRID_SEGMENTS
    grid = (horizontal >= _GRID_LINES and vertical >= _GRID_LINES) or cells >= _CELL_RECTANGLES or dense
    return grid, paths > _TOO_MANY_PATHS


def _paths(page: Any) -> Iterator[Any]:
    """Path objects of a page and of the forms drawn on it, up to a bounded number of objects."""
    left = _OBJECTS_SEEN
    stack: list[tuple[Any, int, int, bool]] = [(page.raw, pdfium.FPDFPage_CountObjects(page), 0, False)]
    while stack:
        owner, count, depth, form = stack.pop()
        read = pdfium.FPDFFormObj_GetObject if form else pdfium.FPDFPage_GetObject
        for index in range(min(count, left)):
            item = read(owner, index)
            kind = pdfium.FPDFPageObj_GetType(item)
            if kind == _PATH:
                yield item
            elif kind == _FORM and depth < _FORM_DEPTH:
                stack.append((item, pdfium.FPDFFormObj_CountObjects(item), depth + 1, True))
        left -= min(count, left)


class TableReader:
    """Reads tables of single pages with pdfplumber, within a total time.

    Args:
        path: the PDF; opened on first use.
        seconds: wall clock for all pages together.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._left = seconds
        self._pdf: Any = None
        self._pages: list[Any] = []

    @property
    def exhausted(self) -> bool:
        """Whether the time for tables is used up."""
        return self._left <= 0

    def tables_of(self, index: int) -> list[FoundTable]:
        """Tables of the page with 0-based ``index``; empty when pdfplumber finds or understands none."""
        begun = time.monotonic()
        try:
            return self._read(index)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception:
            return []
        finally:
            self._left -= time.monotonic() - begun

    def _read(self, index: int) -> list[FoundTable]:
        if self._pdf is None:
            import pdfplumber

            self._pdf = pdfplumber.open(self._path)
            self._pages = list(self._pdf.pages)
        page = self._pages[index]
        try:
            return [found for table in page.find_tables() if (found := _convert(page, table))]
        finally:
            page.close()


def _convert(page: Any, table: Any) -> FoundTable | None:
    """A pdfplumber table as Markdown; None for boxes that only frame text."""
    rows: Sequence[Sequence[str | None]] = table.extract()
    filled = [[cell or "" for cell in row] for row in rows]
    if len(filled) < 2 or max(map(len, filled)) < 2:
        return None
    if sum(bool(cell.strip()) for row in filled for cell in row) < 3:
        return None
    left, top, right, bottom = table.bbox
    origin_x, _, _, upper = page.mediabox
    return FoundTable(left + origin_x * 0, right, upper - bottom, upper - top, markdown.table(filled))
