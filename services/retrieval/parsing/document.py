"""What parsing yields: pages of Markdown, warnings, and one text with exact offsets.

Owns: the values that cross from a worker to the box. Does not own: how any format is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

PAGE_SEPARATOR: Final = "\n\n"


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """One page (slide, sheet) as Markdown.

    Attributes:
        number: 1-based; None where the format has no pages.
        markdown: text of the page; empty when nothing could be read.
        ocr: whether the text was recognised from a picture.
    """

    number: int | None
    markdown: str
    ocr: bool = False


@dataclass(frozen=True, slots=True)
class PageWarning:
    """Something that was not read as it stands, with a stable code and an English sentence."""

    page: int | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A whole document after parsing.

    Attributes:
        pages: in reading order; at least one has text, or a warning says why none has (a scan without Tesseract).
        warnings: what a reader of the answers should know.
        title: from the document's metadata or its first heading; empty when there is none.
        media_type: the type by content, not by name.
        language_hint: ``ru``, ``en`` or None, by the script of the letters.
    """

    pages: tuple[ParsedPage, ...]
    warnings: tuple[PageWarning, ...]
    title: str
    media_type: str
    language_hint: str | None


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Where one page lies in the document's text: ``text[start:end]`` is its Markdown."""

    number: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DocumentText:
    """All pages joined by a blank line; every offset in the house counts characters of ``text``."""

    text: str
    spans: tuple[PageSpan, ...]

    @classmethod
    def of(cls, pages: Iterable[ParsedPage]) -> DocumentText:
        """Join the pages; pages without text take no room."""
        parts: list[str] = []
        spans: list[PageSpan] = []
        at = 0
        for page in pages:
            if not page.markdown:
                spans.append(PageSpan(page.number, at, at))
                continue
            if parts:
                parts.append(PAGE_SEPARATOR)
                at += len(PAGE_SEPARATOR)
            parts.append(page.markdown)
            spans.append(PageSpan(page.number, at, at + len(page.markdown)))
            at += len(page.markdown)
        return cls("".join(parts), tuple(spans))

    @classmethod
    def of_text(cls, text: str) -> DocumentText:
        """A document of one page without a number."""
        return cls(text, (PageSpan(None, 0, len(text)),))

    def page_at(self, offset: int) -> int | None:
        """Number of the page that holds the character at ``offset``; None without page numbers."""
        index = bisect_right(self.spans, offset, key=lambda span: span.start) - 1
        return self.spans[index].number if index >= 0 else None
