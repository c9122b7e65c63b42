"""Read a DOCX: headings, numbered clauses, lists and tables in the order of the body; header and footer once.

Deleted revisions, hidden text and comments are left out. A DOCX has no pages until it is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docx

from services.retrieval.parsing import failures, markdown
from services.retrieval.parsing.archive import screen_archive
from services.retrieval.parsing.detect import DOCX
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.docx_numbering import Numbering
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.markdown import Blocks
from services.retrieval.parsing.normalise import clean_text, language_of, one_line, tidy_markdown
from services.retrieval.parsing.ooxml import MC, W, attribute, children, first, is_on, office_errors
from services.retrieval.parsing.reporting import Report

_SKIPPED: Final = frozenset({f"{W}del", f"{W}moveFrom", f"{W}instrText", f"{W}delText", f"{MC}Fallback", f"{W}pPr", f"{W}rPr"})
_BREAKS: Final = {f"{W}tab": " ", f"{W}br": "\n", f"{W}cr": "\n", f"{W}noBreakHyphen": "-"}
_MOST_MERGED: Final = 200
_MAX_LABEL: Final = 30


@dataclass(frozen=True, slots=True)
class _Style:
    """What a paragraph style brings: heading level (0 = title) and list membership."""

    level: int | None
    number_id: str | None
    depth: int


def parse_docx(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the DOCX at ``path``.

    Raises:
        ApplianceError: ``document_corrupt``, ``document_encrypted``, ``document_bomb``, ``document_empty``,
            ``document_too_long``.
    """
    screen_archive(path, limits)
    report.progress(0, 1)
    with office_errors():
        document = docx.Document(str(path))
        text = tidy_markdown(_DocxReader(document, limits).read())
        title = one_line(document.core_properties.title or "")[:300]
    if not text:
        raise failures.empty()
    return ParsedDocument((ParsedPage(None, text),), report.warnings(), title, DOCX, language_of(text))


class _DocxReader:
    """Walks the body of one document."""

    def __init__(self, document: Any, limits: ParseLimits) -> None:
        self._document = document
        self._blocks = Blocks(limits.text_characters)
        self._cells_left = limits.cells
        self._limits = limits
        self._styles = _styles(document)
        self._numbering = Numbering(_numbering_root(document))

    def read(self) -> str:
        """Markdown of the whole document."""
        self._margins("header")
        self._walk(self._document.element.body)
        self._margins("footer")
        return self._blocks.take()

    def _margins(self, which: str) -> None:
        """Header or footer texts of all sections, each once."""
        seen: set[str] = set()
        for section in self._document.sections:
            part = getattr(section, which)
            if part.is_linked_to_previous:
                continue
            text = one_line(" ".join(_text(item) for item in part._element.iter(f"{W}p")))  # noqa: SLF001 -- the only way to its tables
            if len(text) > 3 and text not in seen:
                seen.add(text)
                self._blocks.add(text)

    def _walk(self, body: Any) -> None:
        """Paragraphs and tables in order; consecutive list items form one block."""
        items: list[str] = []
        for element in _block_elements(body):
            if element.tag == f"{W}p":
                text, is_item = self._paragraph(element)
                if is_item:
                    items.append(text)
                    continue
            else:
                text = self._table(element)
            self._blocks.add("\n".join(items))
            items = []
            self._blocks.add(text)
        self._blocks.add("\n".join(items))

    def _paragraph(self, element: Any) -> tuple[str, bool]:
        """Markdown of a paragraph, and whether it is a short list item that belongs to the list before it."""
        text = clean_text(_text(element)).strip()
        if not text:
            return "", False
        style, number_id, depth = self._format(element)
        label = self._numbering.label(number_id, depth) if number_id not in {None, "0"} and number_id else None
        if style.level is not None:
            prefix = f"{label} " if label and label != "-" else ""
            return markdown.heading(max(1, style.level), prefix + text), False
        if label is None:
            return text, False
        line = " ".join(text.split())
        if label == "-" or not label:
            return f"{'  ' * depth}- {line}", True
        return f"{label[:_MAX_LABEL]} {line}", depth > 0 or len(line) < _MOST_MERGED

    def _format(self, element: Any) -> tuple[_Style, str | None, int]:
        """Style of a paragraph with its own list settings, which win over the style's."""
        properties = first(element, "pPr")
        named = first(properties, "pStyle") if properties is not None else None
        style = self._styles.get(attribute(named, "val") or "" if named is not None else "", _Style(None, None, 0))
        if properties is None:
            return style, style.number_id, style.depth
        outline = first(properties, "outlineLvl")
        if outline is not None and (level := _small(attribute(outline, "val"))) < 9:
            style = _Style(level + 1, style.number_id, style.depth)
        number_id, depth = _list_of(properties)
        return style, number_id or style.number_id, depth if number_id else style.depth

    def _table(self, element: Any) -> str:
        rows: list[list[str]] = []
        for row in children(element, "tr"):
            cells = list(_row_cells(row, rows[-1] if rows else []))
            self._cells_left -= len(cells)
            if self._cells_left < 0:
                raise failures.too_long("the tables of the document", self._limits.cells, "cells")
            rows.append(cells)
        if len(rows) == 1 and len(rows[0]) == 1:
            return rows[0][0]
        return markdown.table(rows)


def _block_elements(body: Any) -> Iterator[Any]:
    """``w:p`` and ``w:tbl`` of a body in order, those in content controls too; without recursion."""
    stack = [iter(body)]
    while stack:
        for element in stack[-1]:
            if element.tag in {f"{W}p", f"{W}tbl"}:
                yield element
            elif element.tag in {f"{W}sdt", f"{W}sdtContent", f"{W}ins", f"{W}customXml"}:
                stack.append(iter(element))
                break
        else:
            stack.pop()


def _row_cells(row: Any, above: list[str]) -> Iterator[str]:
    """Texts of a row; a vertically merged cell repeats the text above, a wide cell is followed by blanks."""
    column = 0
    for cell in children(row, "tc"):
        span = first(cell, "tcPr", "gridSpan")
        width = max(1, min(_small(attribute(span, "val")) if span is not None else 1, 64))
        merge = first(cell, "tcPr", "vMerge")
        if merge is not None and attribute(merge, "val") != "restart":
            yield above[column] if column < len(above) else ""
        else:
            yield one_line(" ".join(_text(item) for item in cell.iter(f"{W}p")))
        yield from [""] * (width - 1)
        column += width


def _text(paragraph: Any) -> str:
    """Visible text of a paragraph: insertions yes, deletions and hidden runs no; text boxes in place."""
    parts: list[str] = []
    stack = [iter(paragraph)]
    while stack:
        for element in stack[-1]:
            tag = element.tag
            if tag == f"{W}t":
                parts.append(element.text or "")
            elif tag in _BREAKS:
                parts.append(_BREAKS[tag])
            elif tag in _SKIPPED or (tag == f"{W}r" and is_on(first(element, "rPr"), "vanish")):
                continue
            elif tag == f"{W}p":
                parts.append(" ")
                stack.append(iter(element))
                break
            else:
                stack.append(iter(element))
                break
        else:
            stack.pop()
    return "".join(parts)


def _styles(document: Any) -> dict[str, _Style]:
    """Paragraph styles by id; the English built-in name is stored whatever the language of Word."""
    out: dict[str, _Style] = {}
    for style in children(document.styles.element, "style"):
        name = first(style, "name")
        properties = first(style, "pPr")
        number_id, depth = _list_of(properties)
        level = _heading_level((attribute(name, "val") or "") if name is not None else "")
        if level is None and properties is not None and (outline := first(properties, "outlineLvl")) is not None:
            level = _small(attribute(outline, "val")) + 1
        out[attribute(style, "styleId") or ""] = _Style(level if level is None or level <= 9 else None, number_id, depth)
    return out


def _heading_level(name: str) -> int | None:
    words = name.lower().split()
    if words[:1] == ["title"]:
        return 0
    if len(words) == 2 and words[0] in {"heading", "заголовок"} and words[1].isdecimal():
        return _small(words[1])
    return None


def _list_of(properties: Any | None) -> tuple[str | None, int]:
    """List id and depth named by paragraph properties."""
    numbered = first(properties, "numPr") if properties is not None else None
    if numbered is None:
        return None, 0
    number = first(numbered, "numId")
    depth = first(numbered, "ilvl")
    return (
        attribute(number, "val") if number is not None else None,
        _small(attribute(depth, "val")) if depth is not None else 0,
    )


def _small(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 4 else 0


def _numbering_root(document: Any) -> Any | None:
    """The ``w:numbering`` element; None for a document without lists."""
    for relation in document.part.rels.values():
        if relation.reltype.endswith("/numbering") and not relation.is_external:
            return relation.target_part.element
    return None
