"""Read a PDF: text by PDFium, tables by pdfplumber where rules are drawn, scans by Tesseract where installed.

Every page that gives less than it shows leaves a warning: ``ocr_unavailable``, ``ocr_failed``,
``ocr_no_text``, ``ocr_language_missing``, ``table_skipped``, ``page_unreadable``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium

from services.retrieval.parsing import failures
from services.retrieval.parsing.detect import PDF
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.markdown import Blocks
from services.retrieval.parsing.normalise import language_of, one_line, tidy_markdown
from services.retrieval.parsing.ocr import Recogniser, is_mostly_picture
from services.retrieval.parsing.pdf_flow import Sizes, flow
from services.retrieval.parsing.pdf_lines import Line, read_lines, running_lines, without_running
from services.retrieval.parsing.pdf_tables import FoundTable, TableReader, count_rules
from services.retrieval.parsing.reporting import Report

_EXPLAINS_NO_TEXT: Final = frozenset({"ocr_unavailable", "ocr_failed", "ocr_no_text"})
_STAMP: Final = 150  # characters; a scan may carry this much real text in a stamp or page number
_UNREADABLE_SHARE: Final = 0.3
_PRIVATE: Final = re.compile("[\ue000-\uf8ff\ufffd\x00-\x1f]")
_UNTITLED: Final = ("(anonymous)", "anonymous", "untitled", "microsoft word - ", "без имени", "document1")


@dataclass(slots=True)
class _Page:
    """What the first pass learns about a page."""

    lines: list[Line] = field(default_factory=list)
    tables: list[FoundTable] = field(default_factory=list)
    recognised: str | None = None


def parse_pdf(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the PDF at ``path``.

    Raises:
        ApplianceError: ``document_encrypted``, ``document_corrupt``, ``document_too_long``, ``document_empty``.
    """
    pdf = _open(path)
    if len(pdf) > limits.pages:
        raise failures.too_long("the document", limits.pages, "pages")
    reader = _PdfReader(pdf, TableReader(path, limits.table_seconds), limits, report)
    pages = [reader.read(index) for index in range(len(pdf))]
    markdown = _render(pages, limits)
    if not any(page.markdown for page in markdown):
        _refuse_without_text(report)
    text = "\n".join(page.markdown for page in markdown[:20])
    return ParsedDocument(tuple(markdown), report.warnings(), _title(pdf), PDF, language_of(text))


def _open(path: Path) -> Any:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise failures.encrypted("the PDF") from error
        raise failures.corrupt("PDFium cannot open it") from error


def _refuse_without_text(report: Report) -> None:
    """Refuse a PDF that gave no text, unless it is a scan: then its warnings say what is missing."""
    codes = {warning.code for warning in report.warnings()}
    if "page_unreadable" in codes:
        raise failures.corrupt("none of its pages can be read")
    if not codes & _EXPLAINS_NO_TEXT:
        raise failures.empty()


def _title(pdf: Any) -> str:
    title = one_line(pdf.get_metadata_value("Title"))
    return "" if title.lower().startswith(_UNTITLED) else title[:300]


@dataclass(slots=True)
class _PdfReader:
    """First pass over the pages: lines, tables, recognised text."""

    pdf: Any
    table_reader: TableReader
    limits: ParseLimits
    report: Report
    recogniser: Recogniser | None = None
    searched: bool = False
    characters: int = 0

    def read(self, index: int) -> _Page:
        """Everything that page ``index`` (from 0) holds."""
        self.report.progress(index, len(self.pdf))
        try:
            page = self.pdf[index]
        except pypdfium2.PdfiumError:
            self.report.warn(index + 1, "page_unreadable", "this page is damaged and was left out")
            return _Page()
        try:
            return self._read(page, index)
        finally:
            page.close()

    def _read(self, page: Any, index: int) -> _Page:
        textpage = page.get_textpage()
        try:
            lines = read_lines(textpage)
        finally:
            textpage.close()
        self._count(lines)
        if _is_legible(lines) and not (sum(len(line.text) for line in lines) < _STAMP and is_mostly_picture(page)):
            return _Page(lines, self._tables(page, index))
        return self._recognise(page, index, lines)

    def _count(self, lines: list[Line]) -> None:
        self.characters += sum(len(line.text) for line in lines)
        if self.characters > self.limits.text_characters:
            raise failures.too_long("the text of the document", self.limits.text_characters, "characters")

    def _tables(self, page: Any, index: int) -> list[FoundTable]:
        grid, crowded = count_rules(page)
        if not grid:
            return []
        if crowded or page.get_rotation() or self.table_reader.exhausted:
            self.report.warn(index + 1, "table_skipped", "a table or drawing on this page was read as plain text")
            return []
        return self.table_reader.tables_of(index)

    def _recognise(self, page: Any, index: int, lines: list[Line]) -> _Page:
        """A page without usable text: blank, or a picture to be recognised."""
        number = index + 1
        if not lines and pdfium.FPDFPage_CountObjects(page) == 0:
            return _Page()
        if not self.searched:
            self.recogniser, self.searched = Recogniser.find(), True
            if self.recogniser and self.recogniser.missing:
                names = ", ".join(self.recogniser.missing)
                self.report.warn(None, "ocr_language_missing", f"Tesseract has no data for: {names}")
        if self.recogniser is None:
            self.report.warn(number, "ocr_unavailable", "this page is a picture and Tesseract is not installed, so it was not read")
            return _Page(lines)
        self.report.recognising()
        text = self.recogniser.read(page, self.limits.ocr_page_seconds)
        if text is None:
            self.report.warn(number, "ocr_failed", "this page is a picture and could not be recognised")
            return _Page(lines)
        if not text:
            self.report.warn(number, "ocr_no_text", "this page is a picture in which no text was found")
        if _is_legible(lines) and len(text) < sum(len(line.text) for line in lines):
            return _Page(lines)
        return _Page(recognised=text)


def _is_legible(lines: list[Line]) -> bool:
    """Whether the text layer holds words, not the private codes of a font without a Unicode map."""
    text = "".join(line.text for line in lines)
    if not text:
        return False
    return len(_PRIVATE.findall(text)) <= len(text) * _UNREADABLE_SHARE


def _render(pages: list[_Page], limits: ParseLimits) -> list[ParsedPage]:
    """Second pass, when headings and running lines of the whole document are known."""
    running = running_lines([page.lines for page in pages if page.lines])
    sizes = Sizes.of(page.lines for page in pages)
    blocks = Blocks(limits.text_characters)
    out: list[ParsedPage] = []
    for number, page in enumerate(pages, start=1):
        if page.recognised is not None:
            blocks.add(page.recognised)
        else:
            _flow_page(without_running(page.lines, running, number == 1), page.tables, sizes, blocks)
        out.append(ParsedPage(number, tidy_markdown(blocks.take()), ocr=bool(page.recognised)))
    return out


def _flow_page(lines: list[Line], tables: list[FoundTable], sizes: Sizes, blocks: Blocks) -> None:
    """Text between the tables, and each table before the first line that stands below it."""
    waiting = sorted(tables, key=lambda table: -table.top)
    free = [line for line in lines if not any(table.holds(line) for table in tables)]
    pending: list[Line] = []
    for line in free:
        while waiting and line.top <= waiting[0].bottom + 2:
            for block in flow(pending, sizes):
                blocks.add(block)
            pending = []
            blocks.add(waiting.pop(0).markdown)
        pending.append(line)
    for block in flow(pending, sizes):
        blocks.add(block)
    for table in waiting:
        blocks.add(table.markdown)
