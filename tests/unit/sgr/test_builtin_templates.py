"""The templates of the release: filled in both languages, opened again, and equal to what their builder makes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pypdfium2
import pytest
from docx import Document
from pptx import Presentation

from services.sgr.ports import Template
from services.sgr.rendering.office_renderer import OfficeRenderer, load_template
from services.sgr.templates.builtin.build import ALL, manifest
from services.sgr.templates.builtin.schemas import LANGUAGES
from services.sgr.templates.fields import check
from services.sgr.templates.folder_catalogue import BUILTIN_FOLDER, FolderCatalogue
from services.sgr.templates.package import Package
from tests.unit.sgr.office_files import CITED, faults, parts

DATA: dict[str, dict[str, Any]] = {
    "report": {
        "title": "Договор поставки", "subtitle": "за 2026 год", "summary": "Первое.\n\nВторое [1].", "facts": [{"name": "Срок", "value": "31 мая"}],
        "sections": [{"heading": "Сроки", "text": "Абзац.\n\nЕщё.", "points": ["раз", "два"]}], "conclusions": ["Продлить"],
    },
    "agenda": {
        "title": "Weekly", "date": "2026-03-04", "time": "10:00", "place": "Room 2", "goal": "Decide", "participants": ["Anna"],
        "items": [{"time": "10:05", "topic": "Budget", "speaker": "Anna", "result": "decision"}], "preparation": [],
    },
    "milestone-plan": {
        "title": "Move", "goal": "Moved", "owner": "Rita", "start": "2026-01-01", "end": "2026-06-30",
        "milestones": [{"name": "Lease", "due": "2026-02-01", "owner": "Rita", "result": "signed"}], "risks": [{"risk": "late", "response": "wait"}],
    },
    "slide-deck": {
        "title": "Итоги", "subtitle": "2026", "slides": [{"title": "Раз", "points": ["а", "б"], "notes": "сказать"}] * 3, "conclusion": ["Всё"],
    },
}  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> FolderCatalogue:
    return FolderCatalogue(tmp_path)


def words(content: bytes, template: Template) -> str:
    opened: Any = Document(io.BytesIO(content)) if template.output == "docx" else Presentation(io.BytesIO(content))
    if template.output == "docx":
        blocks = [paragraph.text for paragraph in opened.paragraphs] + [cell.text for table in opened.tables for row in table.rows for cell in row.cells]
        return "\n".join([*blocks, opened.sections[0].header.paragraphs[0].text])
    shapes = [shape for slide in opened.slides for shape in slide.shapes]
    tables = [cell.text for shape in shapes if shape.has_table for row in shape.table.rows for cell in row.cells]
    return "\n".join([shape.text_frame.text for shape in shapes if shape.has_text_frame] + tables)


@pytest.mark.parametrize("name", sorted(DATA))
@pytest.mark.parametrize("language", ["en", "ru"])
def test_it_is_filled_and_carries_its_sources(catalogue: FolderCatalogue, name: str, language: str) -> None:
    template = catalogue.get(name)
    jsonschema.validate(DATA[name], template.schema_in(language))
    rendered = OfficeRenderer(catalogue.read).render(template, DATA[name], language, [CITED])
    assert faults(rendered.content) == []
    text = words(rendered.content, template)
    assert DATA[name]["title"] in text
    assert "[1] supply contract.pdf" in text.replace("[1]\n", "[1] ")
    assert "This contract ends on 31 May 2026." in text
    assert {"en": "Sources", "ru": "Источники"}[language] in text
    assert rendered.name == f"{DATA[name]['title']}.{template.output}"
    without = words(OfficeRenderer(catalogue.read).render(template, DATA[name], language, []).content, template)
    assert {"en": "Sources", "ru": "Источники"}[language] not in without


def test_dates_and_heads_speak_the_language(catalogue: FolderCatalogue) -> None:
    template = catalogue.get("agenda")
    render = OfficeRenderer(catalogue.read).render
    assert "4 марта 2026\u00a0г." in words(render(template, DATA["agenda"], "ru", []).content, template)
    english = words(render(template, DATA["agenda"], "other", []).content, template)
    assert "4 March 2026" in english
    assert "Preparation" not in english  # nothing to prepare: no heading either


def test_each_schema_has_words_for_people_in_both_languages(catalogue: FolderCatalogue) -> None:
    for name in catalogue.names():
        template = catalogue.get(name)
        for language in ("en", "ru"):
            schema = template.schema_in(language)
            check(load_template(catalogue.read(template, language)).readings(), schema)
            fields = list(schema["properties"].values())
            assert all(field["title"] for field in fields)
            cyrillic = all(any("а" <= letter.lower() <= "я" for letter in field["title"]) for field in fields)
            assert cyrillic == (language == "ru")
        assert template.hints["ru"] != template.hints["en"]


def test_the_committed_files_are_what_the_builder_makes() -> None:
    assert {path.name for path in BUILTIN_FOLDER.iterdir()} == {
        name for one in ALL for name in (f"{one.name}.json", *(f"{one.name}.{language}.{one.output}" for language in LANGUAGES))
    }
    for one in ALL:
        assert manifest(one) == (BUILTIN_FOLDER / f"{one.name}.json").read_bytes(), one.name
    for one, index in ((ALL[0], 1), (ALL[3], 0)):  # all eight take seconds
        made, committed = Package.read(one.make(index)).parts, parts((BUILTIN_FOLDER / f"{one.name}.{LANGUAGES[index]}.{one.output}").read_bytes())
        assert {name for name in made.keys() | committed.keys() if made.get(name) != committed.get(name)} == set(), one.name


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_opens_each_and_shows_what_was_filled_in(catalogue: FolderCatalogue, tmp_path: Path) -> None:
    files, seen = [], {"report": "Продлить", "agenda": "Budget", "milestone-plan": "Lease", "slide-deck": "Итоги"}
    for name in seen:
        template = catalogue.get(name)
        rendered = OfficeRenderer(catalogue.read).render(template, DATA[name], "ru", [CITED])
        files.append(tmp_path / f"{name}.{template.output}")
        files[-1].write_bytes(rendered.content)
    profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    command = ["soffice", profile, "--headless", "--convert-to", "pdf", "--outdir", str(tmp_path), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=110, env={**os.environ, "HOME": str(tmp_path)})
    for name, words_in_it in seen.items():
        pages = pypdfium2.PdfDocument(tmp_path / f"{name}.pdf")
        text = "\n".join(page.get_textpage().get_text_range() for page in pages)
        assert words_in_it in text, name
        assert CITED.document_name in text, name
