"""Write demo documents in each format from plain blocks. Build-time only: reportlab and Pillow are not shipped."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import docx
import openpyxl
import pptx
from openpyxl.styles import Font
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pptx.util import Inches
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, ListFlowable, ListItem, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

Block = tuple[str, Any]
"""``("h1" | "h2" | "p", text)``, ``("li", items)`` or ``("table", rows)`` with a header row."""

_FONTS: Final = Path("/usr/share/fonts/truetype/dejavu")
_STAMP: Final = (2025, 6, 1, 12, 0, 0)
_MODIFIED: Final = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*")
_MODIFIED_THEN: Final = rb"\g<1>2025-06-01T12:00:00Z"
_MOMENT: Final = dt.datetime(*_STAMP)  # noqa: DTZ001 -- Office stores naive times


def write_pdf(path: Path, blocks: Sequence[Block], title: str) -> None:
    """A text PDF with headings and ruled tables."""
    for name, file in (("Body", "DejaVuSans.ttf"), ("Bold", "DejaVuSans-Bold.ttf")):
        pdfmetrics.registerFont(TTFont(name, _FONTS / file))
    styles = {
        "h1": ParagraphStyle("h1", fontName="Bold", fontSize=15, leading=20, spaceAfter=8),
        "h2": ParagraphStyle("h2", fontName="Bold", fontSize=12, leading=16, spaceBefore=8, spaceAfter=4),
        "p": ParagraphStyle("p", fontName="Body", fontSize=10, leading=13.5, spaceAfter=6),
    }
    flow: list[Flowable] = []
    for kind, content in blocks:
        if kind == "table":
            flow += [_pdf_table(content), Spacer(1, 8)]
        elif kind == "li":
            flow.append(ListFlowable([ListItem(Paragraph(item, styles["p"])) for item in content], bulletType="bullet"))
        else:
            flow.append(Paragraph(content, styles[kind]))
    SimpleDocTemplate(str(path), pagesize=A4, title=title, author="Demo", invariant=1).build(flow)


def _pdf_table(rows: Sequence[Sequence[str]]) -> Table:
    grid = [
        ("GRID", (0, 0), (-1, -1), 0.5, colors.black),
        ("FONT", (0, 0), (-1, -1), "Body", 9),
        ("FONT", (0, 0), (-1, 0), "Bold", 9),
        ("BACKGROUND", (0, 0), (-1, 0), colors.lightgrey),
    ]
    return Table([list(row) for row in rows], style=TableStyle(grid), hAlign="LEFT")


def write_scan(path: Path, lines: Sequence[str]) -> None:
    """A PDF that is only a picture: a page set in type, turned a little and blurred like a scan."""
    width, height = 1240, 1754  # A4 at 150 dpi
    image = Image.new("L", (width, height), 250)
    font = ImageFont.truetype(str(_FONTS / "DejaVuSerif.ttf"), 27)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((110, 130 + number * 46), line, fill=25, font=font)
    image = image.rotate(0.4, fillcolor=250, resample=Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(0.6))
    picture = io.BytesIO()
    image.save(picture, "JPEG", quality=45, optimize=True)
    picture.seek(0)
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    canvas.drawImage(ImageReader(picture), 0, 0, *A4)
    canvas.save()


def write_docx(path: Path, blocks: Sequence[Block], title: str, footer: str) -> None:
    """A Word document with real heading styles, lists and tables."""
    document = docx.Document()
    _stamp(document.core_properties, title)
    document.sections[0].footer.paragraphs[0].text = footer
    for kind, content in blocks:
        if kind in {"h1", "h2"}:
            document.add_heading(content, level=int(kind[1]))
        elif kind == "li":
            for item in content:
                document.add_paragraph(item, style="List Bullet")
        elif kind == "table":
            table = document.add_table(rows=0, cols=len(content[0]), style="Table Grid")
            for row in content:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
        else:
            document.add_paragraph(content)
    document.save(str(path))
    _settle(path)


def write_xlsx(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], discounts: Sequence[Sequence[object]]) -> None:
    """A price list: a merged title, numbers with formats, dates, percents, and a second sheet."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Price list"
    sheet.append(["Прайс-лист АО «КазПрибор», II квартал 2025 / Price list Q2 2025"])
    sheet.merge_cells("A1:F1")
    sheet.append(list(header))
    for row in rows:
        sheet.append(list(row))
        line = sheet.max_row
        sheet.cell(line, 3).number_format = '#,##0.00 "₽"'
        sheet.cell(line, 4).number_format = "0%"
        sheet.cell(line, 5).number_format = "dd.mm.yyyy"
    for cell in sheet[2]:
        cell.font = Font(bold=True)
    second = book.create_sheet("Discounts")
    for row in discounts:
        second.append(list(row))
    for line in range(2, second.max_row + 1):
        second.cell(line, 2).number_format = "0%"
    _stamp(book.properties, "Price list Q2 2025")
    book.save(path)
    _settle(path)


def write_pptx(path: Path, slides: Sequence[tuple[str, list[str], list[list[str]], str]], title: str) -> None:
    """Slides with a title, bullets, perhaps a table, and notes."""
    deck = pptx.Presentation()
    _stamp(deck.core_properties, title)
    for heading, bullets, rows, notes in slides:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = heading
        slide.placeholders[1].text = "\n".join(bullets)
        if rows:
            frame = slide.shapes.add_table(len(rows), len(rows[0]), Inches(1), Inches(4), Inches(8), Inches(2))
            for number, row in enumerate(rows):
                for column, text in enumerate(row):
                    frame.table.cell(number, column).text = text
        slide.notes_slide.notes_text_frame.text = notes
    deck.save(str(path))
    _settle(path)


def _stamp(properties: Any, title: str) -> None:
    properties.title, properties.created, properties.modified = title, _MOMENT, _MOMENT
    for name, value in (("author", "Demo"), ("creator", "Demo")):
        if hasattr(properties, name):
            setattr(properties, name, value)


def _settle(path: Path) -> None:
    """Write an Office file again with fixed times, so that building twice gives the same bytes."""
    with zipfile.ZipFile(path) as source:
        members = [(name, _MODIFIED.sub(_MODIFIED_THEN, source.read(name))) for name in source.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name, content in members:
            entry = zipfile.ZipInfo(name, _STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, content)
