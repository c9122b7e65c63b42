"""The demo library reads cleanly, and every question's answer is where ``questions.jsonl`` says."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from services.retrieval.chunking import chunk_document
from services.retrieval.parsing.document import DocumentText, ParsedDocument
from services.retrieval.parsing.limits import DEFAULT_LIMITS
from services.retrieval.parsing.ocr import Recogniser
from services.retrieval.parsing.parse import parse_document
from services.retrieval.parsing.reporting import Report

DEMO = Path(__file__).resolve().parents[2] / "demo"
FILES = sorted((DEMO / "library").glob("*/*"))
QUESTIONS = [json.loads(line) for line in (DEMO / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
SCANS = {"договор_аренды_скан.pdf"}


@functools.cache
def parsed(path: Path) -> ParsedDocument:
    if path.name in SCANS and ((found := Recogniser.find()) is None or found.missing):
        pytest.skip("Tesseract with rus+eng is not installed (apt install tesseract-ocr tesseract-ocr-rus)")
    return parse_document(path, path.name, DEFAULT_LIMITS, Report())


def test_the_library_is_small_and_has_every_format() -> None:
    assert len(FILES) >= 14
    assert {path.suffix for path in FILES} == {".pdf", ".docx", ".xlsx", ".pptx", ".html", ".md", ".txt", ".csv"}
    assert sum(path.stat().st_size for path in FILES) < 600_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_demo_document_reads_without_warnings(path: Path) -> None:
    document = parsed(path)
    assert document.warnings == ()
    assert chunk_document(DocumentText.of(document.pages))


def test_questions_cover_both_languages_spaces_and_the_unanswerable() -> None:
    assert len(QUESTIONS) >= 40
    assert {question["space"] for question in QUESTIONS} == {"legal", "engineering"}
    assert sum(question["answer_substring"] is None for question in QUESTIONS) >= 4
    assert {path.name for path in FILES} == {question["document"] for question in QUESTIONS} - {None}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["question"][:40])
def test_an_answer_lies_in_one_chunk_of_its_document(question: dict[str, str]) -> None:
    if question["answer_substring"] is None:
        return
    text = DocumentText.of(parsed(DEMO / "library" / question["space"] / question["document"]).pages)
    assert any(question["answer_substring"] in chunk.text for chunk in chunk_document(text))
