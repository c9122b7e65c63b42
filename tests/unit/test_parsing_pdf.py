"""PDF: reading order, re-flow, headings, tables, scans. Files are made here with reportlab."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Table, TableStyle

from services.retrieval.parsing.document import ParsedDocument
from services.retrieval.parsing.limits import DEFAULT_LIMITS
from services.retrieval.parsing.ocr import Recogniser
from services.retrieval.parsing.parse import parse_document
from services.retrieval.parsing.pdf_flow import join_lines
from services.retrieval.parsing.reporting import ParseProgress, Report

H1 = ParagraphStyle("h1", fontName="Helvetica-Bold", fontSize=18, leading=22)
H2 = ParagraphStyle("h2", fontName="Helvetica-Bold", fontSize=13, leading=17)
BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=10, leading=13, spaceAfter=6)
LONG = "The supplier delivers the goods within thirty days and the buyer pays each invoice in euro by bank transfer to the account named below. " * 3
SCAN_FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"


def parse(path: Path, report: Report | None = None) -> ParsedDocument:
    return parse_document(path, path.name, DEFAULT_LIMITS, report or Report())


def build(path: Path, flow: list[object], **options: object) -> Path:
    SimpleDocTemplate(str(path), pagesize=A4, title="A made document", **options).build(flow)
    return path


def scan(path: Path, text: str, pages: int = 1) -> Path:
    canvas = Canvas(str(path), pagesize=A4)
    for _ in range(pages):
        image = Image.new("L", (1240, 600), 255)
        if text:
            ImageDraw.Draw(image).text((100, 100), text, fill=0, font=ImageFont.truetype(SCAN_FONT, 32))
        data = io.BytesIO()
        image.save(data, "PNG")
        data.seek(0)
        canvas.drawImage(ImageReader(data), 0, 300, A4[0], 300)
        canvas.showPage()
    canvas.save()
    return path


def test_paragraphs_are_reflowed_and_headings_found_by_size(tmp_path: Path) -> None:
    flow = [Paragraph("Supply agreement", H1), Paragraph("1. Payment", H2), Paragraph(LONG, BODY), Paragraph("Second paragraph.", BODY)]
    document = parse(build(tmp_path / "a.pdf", flow))
    assert document.title == "A made document"
    assert document.language_hint == "en"
    assert document.pages[0].markdown == f"# Supply agreement\n\n## 1. Payment\n\n{LONG.strip()}\n\nSecond paragraph."


def test_pages_keep_their_numbers_and_running_lines_appear_once(tmp_path: Path) -> None:
    def margins(canvas: Canvas, template: SimpleDocTemplate) -> None:
        canvas.drawString(72, 820, "ACME confidential")
        canvas.drawString(280, 20, f"Page {template.page} of 5")

    template = SimpleDocTemplate(str(tmp_path / "a.pdf"), pagesize=A4)
    flow = [item for number in range(5) for item in (Paragraph(f"Text of part {number}. {LONG}", BODY), PageBreak())]
    template.build(flow, onFirstPage=margins, onLaterPages=margins)
    pages = parse(tmp_path / "a.pdf").pages
    assert [page.number for page in pages] == [1, 2, 3, 4, 5]
    assert sum("ACME confidential" in page.markdown for page in pages) == 1
    assert not any("Page " in page.markdown for page in pages)
    assert all(f"Text of part {number}." in page.markdown for number, page in enumerate(pages))


def test_a_ruled_table_becomes_markdown_between_its_neighbours(tmp_path: Path) -> None:
    rows = [["Item", "Price"], ["Profile 40x40", "12.40"], ["Bracket", "1.95"]]
    grid = Table(rows, style=TableStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.black)]))
    document = parse(build(tmp_path / "a.pdf", [Paragraph("Prices are below.", BODY), grid, Paragraph("VAT is excluded.", BODY)]))
    assert document.pages[0].markdown == (
        "Prices are below.\n\n| Item | Price |\n| --- | --- |\n| Profile 40x40 | 12.40 |\n| Bracket | 1.95 |\n\nVAT is excluded."
    )
    assert document.warnings == ()


def test_a_box_around_text_is_no_table(tmp_path: Path) -> None:
    box = Table([["Only a framed remark"]], style=TableStyle([("BOX", (0, 0), (-1, -1), 1, colors.black)]))
    assert "|" not in parse(build(tmp_path / "a.pdf", [Paragraph("Text.", BODY), box])).pages[0].markdown


def test_bullets_make_one_list_and_contents_are_no_headings(tmp_path: Path) -> None:
    flow = [Paragraph("Contents", H1), Paragraph("1. Payment " + ". " * 30 + "4", H2), Paragraph("2.1 Notice", H2)]
    flow += [Paragraph(text, BODY) for text in ("The tenant must:", "• pay the rent", "• keep the house clean")]
    assert parse(build(tmp_path / "a.pdf", flow)).pages[0].markdown == (
        "# Contents\n\n1. Payment … 4\n\n### 2.1 Notice\n\nThe tenant must:\n\n- pay the rent\n- keep the house clean"
    )


def test_a_scan_with_a_stamp_is_still_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    image = ImageReader(Image.new("L", (600, 800), 255))
    canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=A4)
    canvas.drawImage(image, 0, 0, *A4)
    canvas.drawString(72, 40, "Received 12 March 2025")
    canvas.save()
    document = parse(tmp_path / "a.pdf")
    assert [warning.code for warning in document.warnings] == ["ocr_unavailable"]
    assert document.pages[0].markdown == "Received 12 March 2025"


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (["the supp-", "lier pays"], "the supplier pays"),
        (["сделать по-", "русски"], "сделать по-русски"),
        (["если кто-", "то придёт"], "если кто-то придёт"),
        (["поста-", "вка товара"], "поставка товара"),
        (["2020-", "2025"], "2020- 2025"),
        (["a", "b", "c"], "a b c"),
    ],
)
def test_words_broken_at_a_line_end_are_whole_again(lines: list[str], joined: str) -> None:
    assert join_lines([(line, False) for line in lines]) == joined


def test_progress_counts_pages(tmp_path: Path) -> None:
    seen: list[ParseProgress] = []
    build(tmp_path / "a.pdf", [Paragraph("one", BODY), PageBreak(), Paragraph("two", BODY)])
    parse(tmp_path / "a.pdf", Report(seen.append))
    assert [(now.pages_done, now.pages) for now in seen] == [(0, 2), (1, 2), (2, 2)]


def test_a_scan_without_tesseract_warns_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    document = parse(scan(tmp_path / "scan.pdf", "", pages=2))
    assert [(warning.page, warning.code) for warning in document.warnings] == [(1, "ocr_unavailable"), (2, "ocr_unavailable")]
    assert [page.markdown for page in document.pages] == ["", ""]


def test_tesseract_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "tesseract"
    fake.write_text('#!/bin/sh\n[ "$1" = --list-langs ] && echo eng && exit 0\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    document = parse(scan(tmp_path / "scan.pdf", ""))
    assert [warning.code for warning in document.warnings] == ["ocr_language_missing", "ocr_failed"]


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed (apt install tesseract-ocr tesseract-ocr-rus)")
@pytest.mark.skipif(not Path(SCAN_FONT).exists(), reason="DejaVu fonts are not installed (apt install fonts-dejavu-core)")
def test_a_scanned_page_is_recognised_in_russian_and_english(tmp_path: Path) -> None:
    found = Recogniser.find()
    if found is None or found.missing:
        pytest.skip("Tesseract lacks rus or eng (apt install tesseract-ocr-rus)")
    document = parse(scan(tmp_path / "scan.pdf", "Договор аренды помещения\nThe rent is paid monthly"))
    assert document.pages[0].ocr
    assert "Договор аренды помещения" in document.pages[0].markdown
    assert "rent is paid monthly" in document.pages[0].markdown
