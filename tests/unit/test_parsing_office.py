"""DOCX, XLSX and PPTX: structure, numbers, dates, numbering that Word does not store."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from pptx.util import Inches

from appliance.kit.errors import ApplianceError
from services.retrieval.parsing.document import ParsedDocument
from services.retrieval.parsing.limits import DEFAULT_LIMITS
from services.retrieval.parsing.parse import parse_document
from services.retrieval.parsing.reporting import Report


def parse(path: Path) -> ParsedDocument:
    return parse_document(path, path.name, DEFAULT_LIMITS, Report())


def paragraph(document: docx.document.Document, xml: str) -> None:
    """Append a raw ``w:p`` before the section properties."""
    document.element.body.insert(-1, parse_xml(f"<w:p {nsdecls('w')}>{xml}</w:p>"))


def test_docx_keeps_the_order_of_headings_lists_and_tables(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "Contract"
    document.sections[0].header.paragraphs[0].text = "ACME, copy 1"
    document.add_heading("Supply", 1)
    document.add_paragraph("Before the table.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip([c for row in table.rows for c in row.cells], ["Item", "Price", "Nut", "5"], strict=True):
        cell.text = text
    document.add_paragraph("one", style="List Bullet")
    document.add_paragraph("two", style="List Bullet")
    document.add_heading("Терминология", 2)
    document.add_paragraph("Конец.")
    document.save(tmp_path / "a.docx")
    parsed = parse(tmp_path / "a.docx")
    assert parsed.title == "Contract"
    assert parsed.pages[0].number is None
    assert parsed.pages[0].markdown == (
        "ACME, copy 1\n\n# Supply\n\nBefore the table.\n\n| Item | Price |\n| --- | --- |\n| Nut | 5 |\n\n- one\n- two\n\n## Терминология\n\nКонец."
    )


def test_docx_numbers_clauses_as_word_shows_them(tmp_path: Path) -> None:
    document = docx.Document()
    levels = "".join(
        f'<w:lvl w:ilvl="{depth}"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="{pattern}"/></w:lvl>'
        for depth, pattern in enumerate(["%1.", "%1.%2."])
    )
    numbering = document.part.numbering_part.element
    numbering.insert(0, parse_xml(f'<w:abstractNum {nsdecls("w")} w:abstractNumId="77">{levels}</w:abstractNum>'))
    numbering.append(parse_xml(f'<w:num {nsdecls("w")} w:numId="77"><w:abstractNumId w:val="77"/></w:num>'))
    for depth, text in [(0, "Subject"), (1, "First clause."), (1, "Second clause."), (0, "Payment"), (1, "Third clause.")]:
        paragraph(document, f'<w:pPr><w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="77"/></w:numPr></w:pPr><w:r><w:t>{text}</w:t></w:r>')
    document.save(tmp_path / "a.docx")
    assert parse(tmp_path / "a.docx").pages[0].markdown == "1. Subject\n1.1. First clause.\n1.2. Second clause.\n2. Payment\n2.1. Third clause."


def test_docx_leaves_out_deleted_and_hidden_text(tmp_path: Path) -> None:
    document = docx.Document()
    paragraph(
        document,
        "<w:r><w:t>The price is </w:t></w:r><w:del><w:r><w:delText>100</w:delText></w:r></w:del><w:ins><w:r><w:t>200</w:t></w:r></w:ins>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t> secret</w:t></w:r><w:r><w:tab/><w:t>euro.</w:t></w:r>",
    )
    document.save(tmp_path / "a.docx")
    assert parse(tmp_path / "a.docx").pages[0].markdown == "The price is 200 euro."


def test_docx_repeats_a_merged_cell_in_its_rows(tmp_path: Path) -> None:
    document = docx.Document()
    table = document.add_table(rows=3, cols=2)
    for cell, text in zip([c for row in table.rows for c in row.cells], ["Group", "Item", "Pumps", "P-100", "", "P-200"], strict=True):
        cell.text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    document.save(tmp_path / "a.docx")
    assert "| Pumps | P-100 |\n| Pumps | P-200 |" in parse(tmp_path / "a.docx").pages[0].markdown


def test_xlsx_numbers_stay_numbers_and_dates_stay_dates(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    sheet.append(["Price list 2025"])
    sheet.merge_cells("A1:F1")
    sheet.append(["Item", "Price", "VAT", "From", "At", "Stock"])
    sheet.append(["Nut", 1234.5, 0.2, dt.date(2025, 3, 1), dt.datetime(2025, 3, 1, 9, 30), 1_000_000])  # noqa: DTZ001 -- Excel stores naive times
    sheet.append(["Bolt", 0.1 + 0.2, 0.075, None, None, True])
    sheet["B3"].number_format = '#,##0.00 "₽"'
    sheet["C3"].number_format = sheet["C4"].number_format = "0.0%"
    book.create_sheet("Secret").append(["hidden", "data"])
    book["Secret"].sheet_state = "hidden"
    second = book.create_sheet("Groups")
    second.append(["Kind", "Name"])
    second.append(["Pumps", "P-100"])
    second.append([None, "P-200"])
    second.merge_cells("A2:A3")
    book.save(tmp_path / "a.xlsx")
    parsed = parse(tmp_path / "a.xlsx")
    assert [(page.number, page.markdown) for page in parsed.pages] == [
        (
            1,
            (
                "## Prices\n\nPrice list 2025\n\n| Item | Price | VAT | From | At | Stock |\n| --- | --- | --- | --- | --- | --- |\n"
                "| Nut | 1234.50 ₽ | 20% | 2025-03-01 | 2025-03-01 09:30 | 1000000 |\n| Bolt | 0.3 | 7.5% |  |  | TRUE |"
            ),
        ),
        (3, "## Groups\n\n| Kind | Name |\n| --- | --- |\n| Pumps | P-100 |\n| Pumps | P-200 |"),
    ]
    assert [(warning.page, warning.code) for warning in parsed.warnings] == [(2, "hidden_sheet")]


def test_an_empty_workbook_is_said_to_be_empty(tmp_path: Path) -> None:
    openpyxl.Workbook().save(tmp_path / "a.xlsx")
    with pytest.raises(ApplianceError) as caught:
        parse(tmp_path / "a.xlsx")
    assert caught.value.code == "document_empty"


def test_pptx_slides_have_titles_tables_and_notes(tmp_path: Path) -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Quarter results"
    slide.placeholders[1].text = "Plan met\nScrap fell"
    slide.placeholders[1].text_frame.paragraphs[1].level = 1
    slide.notes_slide.notes_text_frame.text = "Thank the team."
    table = deck.slides.add_slide(deck.slide_layouts[6]).shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for index, text in enumerate(["Line", "Hours", "Casting", "46"]):
        table.cell(index // 2, index % 2).text = text
    deck.save(tmp_path / "a.pptx")
    pages = parse(tmp_path / "a.pptx").pages
    assert pages[0].markdown == "## Quarter results\n\n- Plan met\n  - Scrap fell\n\nNotes: Thank the team."
    assert (pages[1].number, pages[1].markdown) == (2, "| Line | Hours |\n| --- | --- |\n| Casting | 46 |")
