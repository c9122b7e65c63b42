"""Lines of a PDF page with their place and size, and the lines that every page repeats.

Speaks to PDFium's raw interface: one geometry call per line end, not per character, keeps text pages fast.
Coordinates are PDF points from the lower left corner of the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2.raw as pdfium

from services.retrieval.parsing.normalise import squeeze_spaces

_BOLD_WEIGHT: Final = 600
_HEADING_CANDIDATE: Final = 120
_RUNNING_LINE: Final = 120
_RUNNING_SHARE: Final = 0.6
_RUNNING_FROM_PAGES: Final = 3
_HYPHEN_MARKS: Final = ("\x02", "\ufffe", "\u00ad")
_DIGITS: Final = re.compile(r"\d+")
_LEADERS: Final = re.compile(r" ?(?:\. ?){5,}")  # the dots of a table of contents
_PAGE_WORD: Final = re.compile(r"(?i)\b(page|стр|страница|лист)\b\.?\s*\d|\d\s*(of|из|/)\s*\d")
_PAGE_NUMBER: Final = re.compile(r"(?i)[\s–—|-]*((page|стр\.?|страница|лист)\s*)?\d{1,5}(\s*(of|из|/)\s*\d{1,5})?[\s–—|-]*")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text as PDFium groups it.

    Attributes:
        text: without the line end; ``broken`` tells whether a word goes on in the next line.
        left, right, bottom, top: box in points.
        bold: weight of the first character; only looked up for short lines.
    """

    text: str
    left: float
    right: float
    bottom: float
    top: float
    bold: bool = False
    broken: bool = False

    @property
    def size(self) -> float:
        """Height of the line in points, rounded to half a point."""
        return round((self.top - self.bottom) * 2) / 2

    @property
    def middle(self) -> tuple[float, float]:
        """Centre of the box."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


def read_lines(textpage: Any) -> list[Line]:
    """All lines of a page in PDFium's reading order."""
    raw = textpage.get_text_range()
    lines: list[Line] = []
    start = 0
    for part in raw.split("\n"):
        if text := _LEADERS.sub(" … ", squeeze_spaces(part.strip())):
            offset = len(part) - len(part.lstrip())
            lines.append(_measure(textpage, text, start + offset, start + len(part.rstrip()) - 1))
        start += len(part) + 1
    return lines


def _measure(textpage: Any, text: str, first: int, last: int) -> Line:
    """Box of a line from its first and last character (indices into the page's text)."""
    head, tail = pdfium.FS_RECTF(), pdfium.FS_RECTF()
    first = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, first)
    last = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, last)
    pdfium.FPDFText_GetLooseCharBox(textpage, first, head)
    pdfium.FPDFText_GetLooseCharBox(textpage, last, tail)
    bold = len(text) <= _HEADING_CANDIDATE and pdfium.FPDFText_GetFontWeight(textpage, first) >= _BOLD_WEIGHT
    broken = text.endswith(_HYPHEN_MARKS)
    return Line(text.rstrip("".join(_HYPHEN_MARKS)), head.left, tail.right, head.bottom, head.top, bold, broken)


def running_lines(pages: Sequence[Sequence[Line]]) -> frozenset[str]:
    """Masked text of headers and footers: the outermost lines that most pages share."""
    if len(pages) < _RUNNING_FROM_PAGES:
        return frozenset()
    seen: Counter[str] = Counter()
    for lines in pages:
        seen.update({running_form(line.text) for line in _edges(lines) if len(line.text) <= _RUNNING_LINE})
    needed = max(_RUNNING_FROM_PAGES, _RUNNING_SHARE * len(pages))
    return frozenset(text for text, count in seen.items() if count >= needed)


def running_form(text: str) -> str:
    """The line as it is compared between pages: page numbers masked, other numbers kept (``Section 3`` is content)."""
    return _DIGITS.sub("#", text) if _PAGE_WORD.search(text) else text


def without_running(lines: Sequence[Line], running: frozenset[str], first_page: bool) -> list[Line]:
    """Lines without headers, footers and bare page numbers; the first page keeps its header once."""
    edges = {id(line) for line in _edges(lines)}
    return [
        line
        for line in lines
        if id(line) not in edges or not (_PAGE_NUMBER.fullmatch(line.text) or (running_form(line.text) in running and not first_page))
    ]


def _edges(lines: Sequence[Line]) -> list[Line]:
    """The two highest and two lowest lines."""
    if len(lines) <= 4:
        return list(lines)
    ordered = sorted(lines, key=lambda line: line.bottom)
    return ordered[:2] + ordered[-2:]
