"""Read an XLSX: one page per visible sheet, its cells as people see them.

Numbers keep their digits, dates are ISO, percent and currency follow the cell's format, formulas give
the value that Excel stored. Hidden sheets are left out and named in a warning (``hidden_sheet``).
"""

from __future__ import annotations

import datetime as dt
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import openpyxl
from openpyxl.utils.cell import range_boundaries

from services.retrieval.parsing import failures, markdown
from services.retrieval.parsing.archive import screen_archive
from services.retrieval.parsing.detect import XLSX
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.markdown import Blocks
from services.retrieval.parsing.normalise import language_of, one_line, tidy_markdown
from services.retrieval.parsing.ooxml import office_errors
from services.retrieval.parsing.reporting import Report
from services.retrieval.parsing.sheet_table import CellBudget, SheetWriter

_MERGED: Final = re.compile(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7})"')
_PIECE: Final = 1024 * 1024
_MOST_MERGED: Final = 20_000
_TALLEST_MERGE: Final = 2_000
_CURRENCY: Final = re.compile(r'\[\$([^\]-]+)[^\]]*\]|"\s*(руб\.?|р\.|USD|EUR|RUB|€|\$|₽)\s*"|([€£₽$])')
_DIGITS_AFTER_POINT: Final = re.compile(r"0\.(0+)")

Fill = dict[tuple[int, int], tuple[int, int]]


def parse_xlsx(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the XLSX at ``path``.

    Raises:
        ApplianceError: ``document_corrupt``, ``document_encrypted``, ``document_bomb``, ``document_empty``,
            ``document_too_long`` (sheets, cells or characters).
    """
    screen_archive(path, limits)
    with office_errors():
        book = openpyxl.load_workbook(BytesIO(path.read_bytes()), read_only=True, data_only=True, keep_links=False)
        try:
            pages = list(_pages(book, path, limits, report))
            title = one_line(book.properties.title or "")[:300]
        finally:
            book.close()
    if not any(page.markdown for page in pages):
        raise failures.empty("the workbook")
    text = "\n".join(page.markdown[:2_000] for page in pages)
    return ParsedDocument(tuple(pages), report.warnings(), title, XLSX, language_of(text))


def _pages(book: Any, path: Path, limits: ParseLimits, report: Report) -> Iterator[ParsedPage]:
    if len(book.worksheets) > limits.pages:
        raise failures.too_long("the workbook", limits.pages, "sheets")
    blocks, budget = Blocks(limits.text_characters), CellBudget(limits.cells)
    for number, sheet in enumerate(book.worksheets, start=1):
        report.progress(number - 1, len(book.worksheets))
        if sheet.sheet_state != "visible":
            report.warn(number, "hidden_sheet", f"the hidden sheet {one_line(sheet.title)!r} was left out")
            continue
        rows = _rows(sheet, _merged(path, sheet), budget)
        written = blocks.used
        heading = markdown.heading(2, sheet.title)
        writer = SheetWriter(blocks)
        writer.write(rows)
        text = blocks.take() if blocks.used > written else ""
        yield ParsedPage(number, tidy_markdown(f"{heading}\n\n{text}") if text else "")


def _rows(sheet: Any, fill: Fill, budget: CellBudget) -> Iterator[list[str]]:
    """Rows as text; the dimensions that the file declares are not believed."""
    sheet.reset_dimensions()
    kept: dict[tuple[int, int], str] = {}
    sources = set(fill.values())
    for number, row in enumerate(sheet.iter_rows(), start=1):
        budget.take(len(row) or 1)
        texts = ["" if cell.value is None else _shown(cell) for cell in row]
        if fill:
            _fill_merged(texts, number, fill, sources, kept)
        yield texts


def _fill_merged(texts: list[str], number: int, fill: Fill, sources: set[tuple[int, int]], kept: dict[tuple[int, int], str]) -> None:
    """Repeat the text of a merged area in its other cells, so that every row stands on its own."""
    for column, text in enumerate(texts, start=1):
        if (number, column) in sources:
            kept[number, column] = text
        elif not text and (source := fill.get((number, column))) is not None:
            texts[column - 1] = kept.get(source, "")


def _merged(path: Path, sheet: Any) -> Fill:
    """Cells of merged areas mapped to the cell that holds their text; read from the sheet's XML in pieces."""
    fill: Fill = {}
    tail = b""
    with zipfile.ZipFile(path) as archive, archive.open(sheet._worksheet_path) as source:  # noqa: SLF001 -- read-only mode hides it
        while piece := source.read(_PIECE):
            window = tail + piece
            if b"mergeCell" in window:
                for area in _MERGED.findall(window):
                    _add_area(fill, area.decode())
            tail = window[-64:]
    return fill


def _add_area(fill: Fill, area: str) -> None:
    left, top, right, bottom = range_boundaries(area)
    if left is None or top is None or right is None or bottom is None or bottom - top > _TALLEST_MERGE:
        return
    for row in range(top, bottom + 1):
        for column in range(left, min(right, left + 64) + 1):
            if len(fill) >= _MOST_MERGED:
                return
            if (row, column) != (top, left):
                fill[row, column] = (top, left)


def _shown(cell: Any) -> str:
    """A cell's value as text: exact digits, ISO dates, percent and currency by its format."""
    value: object = cell.value
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, cell.number_format or "General")
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(sep=" ", timespec="minutes")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dt.time):
        return value.isoformat(timespec="minutes")
    return one_line(str(value))


def _number(value: float, number_format: str) -> str:
    section = number_format.split(";", maxsplit=1)[0]
    if "%" in section:
        return f"{_digits(round(value * 100, 6))}%"
    currency = _CURRENCY.search(section)
    if currency is None:
        return _digits(value)
    sign = next(group for group in currency.groups() if group).strip()
    places = _DIGITS_AFTER_POINT.search(section)
    amount = f"{value:.{min(len(places.group(1)), 6)}f}" if places else _digits(value)
    return f"{amount} {sign}"


def _digits(value: float) -> str:
    """Shortest form without an exponent or binary noise: 0.1, 1250, 1234567.89."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value)) if abs(value) < 1e15 else f"{value:.15g}"
    text = f"{value:.15g}"
    return text if "e" not in text else f"{value:.17f}".rstrip("0") if 1e-9 < abs(value) < 1 else text
