"""The release's templates filled by the real reader: what was found becomes sections, rows and slides; what nothing says stays empty; nothing is invented."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from docx import Document
from pptx import Presentation

from appliance.contracts.llm.v1.api import Capabilities
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.sgr.v1.api import FormatRequest
from appliance.kit.errors import ApplianceError
from appliance.schema.annotations import without_annotations
from services.llm.reader_chat_model import ReaderChatModel
from services.sgr.quoted_sections import cut, sentences
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.service import SchemaGuidedService
from services.sgr.templates.folder_catalogue import FolderCatalogue
from tests.unit.sgr.sgr_bed import Alias, Drawer, Shelf, Speaker, made

CONTRACT = {
    "1. Subject": "## 1. Subject\n\n1.1. The Supplier delivers aluminium profiles as listed in Annex A. 1.2. Quantities are fixed by monthly orders.",
    "6. Term": "## 6. Term\n\n6.1. The agreement enters into force on 1 April 2025. 6.2. The supply contract ends on 31 March 2027. It is not renewed.",
}
DOGOVOR = {
    "2. Сроки": "## 2. Сроки\n\n2.1. Договор поставки вступает в силу 1 апреля 2025 года. 2.2. Поставщик, директор Сафин Р. И., передаёт товар до 31 мая 2026 г.",
}
LEAVE = {"Leave": "Employees get 28 days of paid leave a year."}


def passages(name: str, texts: dict[str, str]) -> list[Passage]:
    found, start = [], 0
    for number, (heading, text) in enumerate(texts.items(), 1):
        found.append(Passage(number, name, name, 1, "legal", None, ("SUPPLY", heading), start, start + len(text), text, 1.0))
        start += len(text) + 2
    return found


ALL = [*passages("supply_contract.pdf", CONTRACT)[::-1], *passages("leave.md", LEAVE)]


def filled(tmp_path: Path, template: str, prompt: str, found: list[Passage], **changes: Any) -> tuple[Any, bytes]:
    catalogue, drawer = FolderCatalogue(tmp_path), Drawer()
    guided = SchemaGuidedService({"default": Alias("default", ReaderChatModel(None, None))}, Shelf(found), catalogue, OfficeRenderer(catalogue.read), drawer)
    output = catalogue.get(template).output
    result, _ = made(guided, FormatRequest(prompt, template=template, output=output, **changes))
    return result, drawer.kept[0][2].content


def test_a_report_has_the_sections_that_were_found_in_reading_order_with_marks_and_sources(tmp_path: Path) -> None:
    result, content = filled(tmp_path, "report", "supply contract with the vendor", ALL)
    assert result.data["title"] == "supply contract with the vendor"
    assert [section["heading"] for section in result.data["sections"]] == ["1. Subject", "6. Term"]
    assert result.data["sections"][0]["text"].startswith("1.1. The Supplier delivers aluminium profiles")
    assert "leave" not in str(result.data)
    for place in result.citations:
        source = next(one for one in ALL if one.document_id == place.document_id and one.start <= place.start < one.end)
        assert source.text[place.start - source.start : place.end - source.start] == place.quote
        assert f"[{place.number}]" in str(result.data)
    texts = [paragraph.text for paragraph in Document(io.BytesIO(content)).paragraphs]
    assert "Sources" in texts
    assert any(text.startswith("[1] supply_contract.pdf") for text in texts)


def test_a_russian_plan_has_a_milestone_for_each_sentence_with_a_date(tmp_path: Path) -> None:
    result, content = filled(tmp_path, "milestone-plan", "договор поставки", passages("договор_поставки.docx", DOGOVOR), language="ru")
    assert [one["due"] for one in result.data["milestones"]] == ["2025-04-01", "2026-05-31"]
    assert "Сафин Р. И., передаёт" in result.data["milestones"][1]["name"]  # initials end no sentence
    words = [cell.text for table in Document(io.BytesIO(content)).tables for row in table.rows for cell in row.cells]
    assert any("31 мая 2026" in word for word in words)
    assert "Источники" in [paragraph.text for paragraph in Document(io.BytesIO(content)).paragraphs]


def test_slides_and_agendas_are_made_of_what_stands_under_each_heading(tmp_path: Path) -> None:
    result, content = filled(tmp_path, "slide-deck", "supply contract", ALL)
    assert [slide["title"] for slide in result.data["slides"]] == ["1. Subject", "6. Term"]
    assert result.data["slides"][1]["points"][1] == "6.2. The supply contract ends on 31 March 2027."
    deck: Any = Presentation(io.BytesIO(content))
    assert "6. Term" in [slide.shapes.title.text for slide in deck.slides if slide.shapes.title is not None]
    agenda, _ = filled(tmp_path / "other", "agenda", "supply contract", ALL)
    assert [item["topic"] for item in agenda.data["items"]] == ["1. Subject", "6. Term"]
    assert agenda.data["preparation"] == []


@pytest.mark.parametrize("template", ["report", "agenda", "milestone-plan", "slide-deck"])
def test_what_the_sources_say_nothing_about_is_a_clear_error_and_no_document(tmp_path: Path, template: str) -> None:
    with pytest.raises(ApplianceError, match=r"schema_unsatisfied.*nothing about 'recipes for borscht'"):
        filled(tmp_path, template, "recipes for borscht", ALL)


def test_a_draft_is_filled_in_whole(tmp_path: Path) -> None:
    result, _ = filled(tmp_path, "report", "Notes", [], draft=CONTRACT["6. Term"])
    assert "ends on 31 March 2027" in result.data["sections"][0]["text"]


def test_models_that_write_never_see_the_annotations(tmp_path: Path) -> None:
    catalogue, speaker = FolderCatalogue(tmp_path), Speaker("{}", capabilities=Capabilities(schema="asked"))
    guided = SchemaGuidedService({"default": Alias("default", speaker)}, Shelf(ALL), catalogue, OfficeRenderer(catalogue.read), Drawer())
    with pytest.raises(ApplianceError, match="schema_unsatisfied"):
        made(guided, FormatRequest("supply contract", template="report"))
    asked = speaker.requests[0].answer_schema
    assert asked is not None
    assert "x-from" not in str(asked.schema)
    assert without_annotations({"properties": {"x-from": {"x-ask": "?", "type": "string"}}}) == {"properties": {"x-from": {"type": "string"}}}


def test_an_unknown_source_of_values_is_named(tmp_path: Path) -> None:
    guided = SchemaGuidedService({"default": Alias("default", ReaderChatModel(None, None))}, Shelf(ALL), FolderCatalogue(tmp_path), OfficeRenderer(lambda *_: b""), Drawer())
    with pytest.raises(ApplianceError, match=r"schema_unsupported.*x-from"):
        made(guided, FormatRequest("x", schema={"type": "object", "properties": {"a": {"type": "string", "x-from": "dreams"}}}))


def test_sentences_keep_section_numbers_dates_and_tables_apart() -> None:
    text = "# Head\n\n3.1. Fixed until 31 December 2025. 3.2. The Buyer pays.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"
    found = list(sentences(Passage(1, "d", "d", 1, "legal", None, (), 0, len(text), text)))
    assert [one.words for one in found] == ["3.1. Fixed until 31 December 2025.", "3.2. The Buyer pays.", "a — b", "1 — 2"]
    assert cut("one two three", 9) == "one two…"
    assert cut("x" * 20, 5) == "xxxx…"
