"""Read a PPTX: one page per slide with its title as heading, texts in reading order, tables and notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pptx

from services.retrieval.parsing import failures, markdown
from services.retrieval.parsing.archive import screen_archive
from services.retrieval.parsing.detect import PPTX
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.parsing.limits import ParseLimits
from services.retrieval.parsing.markdown import Blocks
from services.retrieval.parsing.normalise import clean_text, language_of, one_line, tidy_markdown
from services.retrieval.parsing.ooxml import office_errors
from services.retrieval.parsing.reporting import Report

_GROUP_DEPTH: Final = 8
_GROUP: Final = 6  # MSO_SHAPE_TYPE.GROUP
_ROW_HEIGHT: Final = 200_000  # EMU; shapes whose tops differ less stand in one row, about 0.5 cm


def parse_pptx(path: Path, limits: ParseLimits, report: Report) -> ParsedDocument:
    """Parse the PPTX at ``path``.

    Raises:
        ApplianceError: ``document_corrupt``, ``document_encrypted``, ``document_bomb``, ``document_empty``,
            ``document_too_long``.
    """
    screen_archive(path, limits)
    blocks = Blocks(limits.text_characters)
    pages: list[ParsedPage] = []
    with office_errors():
        deck = pptx.Presentation(str(path))
        total = len(deck.slides)
        if total > limits.pages:
            raise failures.too_long("the presentation", limits.pages, "slides")
        for number, slide in enumerate(deck.slides, start=1):
            report.progress(number - 1, total)
            _read_slide(slide, number, blocks, report)
            pages.append(ParsedPage(number, tidy_markdown(blocks.take())))
        title = one_line(deck.core_properties.title or "")[:300]
    if not any(page.markdown for page in pages):
        raise failures.empty("the presentation")
    text = "\n".join(page.markdown for page in pages[:50])
    title = "" if title.lower() in {"powerpoint presentation", "презентация powerpoint"} else title
    return ParsedDocument(tuple(pages), report.warnings(), title, PPTX, language_of(text))


def _read_slide(slide: Any, number: int, blocks: Blocks, report: Report) -> None:
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        blocks.add(markdown.heading(2, title.text_frame.text))
    pictures = 0
    for shape in _in_reading_order(slide.shapes, 0):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            blocks.add(_text(shape.text_frame))
        elif getattr(shape, "has_table", False):
            blocks.add(markdown.table([[cell.text for cell in row.cells] for row in shape.table.rows]))
        elif getattr(shape, "has_chart", False) or getattr(shape, "image", None) is not None:
            pictures += 1
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = clean_text(slide.notes_slide.notes_text_frame.text).strip()
        blocks.add(f"Notes: {notes}" if notes else "")
    if pictures:
        report.warn(number, "picture_skipped", f"{pictures} pictures or charts on this slide were not read")


def _in_reading_order(shapes: Any, depth: int) -> Iterator[Any]:
    """Shapes from top to bottom and left to right, groups opened."""
    for shape in sorted(shapes, key=lambda item: ((item.top or 0) // _ROW_HEIGHT, item.left or 0)):
        if shape.shape_type == _GROUP:
            if depth < _GROUP_DEPTH:
                yield from _in_reading_order(shape.shapes, depth + 1)
        else:
            yield shape


def _text(frame: Any) -> str:
    """Paragraphs of a text frame: several become a list, one stays a paragraph."""
    lines = [(paragraph.level or 0, one_line(paragraph.text)) for paragraph in frame.paragraphs]
    lines = [(level, text) for level, text in lines if text]
    if len(lines) == 1:
        return lines[0][1]
    return "\n".join(f"{'  ' * level}- {text}" for level, text in lines)
