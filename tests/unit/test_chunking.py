"""Chunks: exact slices that cover the text in order, bounded in size, along the document's structure."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieval.chunking import ChunkDraft, ChunkSizes, chunk_document
from services.retrieval.parsing.document import DocumentText, ParsedPage

SENTENCE = "The buyer pays each invoice within thirty calendar days of the invoice date by bank transfer. "
SMALL = ChunkSizes(least=20, target=80, most=120)


def chunks_of(text: str) -> list[ChunkDraft]:
    return chunk_document(DocumentText.of_text(text))


def check_invariants(document: DocumentText, chunks: list[ChunkDraft], sizes: ChunkSizes) -> None:
    at = 0
    for number, chunk in enumerate(chunks):
        assert chunk.ordinal == number
        assert chunk.text == document.text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert len(chunk.text) <= sizes.most
        assert document.text[at : chunk.start].strip() == ""
        assert chunk.page == document.page_at(chunk.start)
        at = chunk.end
    assert document.text[at:].strip() == ""


pieces = st.one_of(
    st.sampled_from(["# Heading\n\n", "## Second\n\n", "### Deep\n", "\n", "\n\n", " ", "- item one\n", "1. numbered\n", "Note:\n\n", "```\n", "> "]),
    st.sampled_from(
        ["| a | b |\n| --- | --- |\n", "| cell | 12.5 |\n", "|\n", "Договор № 5 от 12.03.2025 г. ", "e.g. this. ", "...", "!?", "й\u0306"]
    ),
    st.text(max_size=40),
    st.integers(1, 300).map(lambda count: "x" * count),
    st.integers(1, 30).map(lambda count: SENTENCE * count),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(pieces, max_size=12).map("".join), max_size=4), st.sampled_from([ChunkSizes(), SMALL]))
def test_chunks_cover_any_document_exactly(texts: list[str], sizes: ChunkSizes) -> None:
    document = DocumentText.of(ParsedPage(number, text) for number, text in enumerate(texts, start=1))
    check_invariants(document, chunk_document(document, sizes), sizes)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5_000_000,
        "word " * 1_000_000,
        "# H\n\n" * 100_000,
        "# H\n\ntext.\n\n" * 100_000,
        "." * 2_000_000,
        "| " * 2_000_000,
        "- " * 1_000_000 + "x",
        "\n".join("  " * min(depth, 2_000) + "- x" for depth in range(3_000)),
        "|a|b|\n|-|-|\n" + "|x y z|1|\n" * 100_000,
        "\u0301" * 1_000_000,
        "a:\n\n" * 100_000,
        " " * 4_000_000 + "x",
        "x" + "\n \t" * 1_000_000 + "y",
        "a. B " * 500_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_time_is_linear_whatever_the_input(text: str) -> None:
    document = DocumentText.of_text(text)
    begun = time.process_time()
    chunks = chunk_document(document)
    assert time.process_time() - begun < 5
    check_invariants(document, chunks, ChunkSizes())


def test_a_short_document_is_one_chunk() -> None:
    (chunk,) = chunks_of("# Note\n\nFirst.\n\n## Part\n\n- one\n- two\n")
    assert chunk.heading_path == ("Note",)


@pytest.mark.parametrize("length", [300, 1_000, 1_390])
def test_a_plain_paragraph_stays_whole(length: int) -> None:
    text = (SENTENCE * 20)[:length].strip()
    assert [chunk.text for chunk in chunks_of(text)] == [text]


def test_a_long_paragraph_is_cut_between_sentences_into_equal_parts() -> None:
    chunks = chunks_of((SENTENCE * 60).strip())
    assert all(chunk.text.endswith("transfer.") for chunk in chunks)
    lengths = [len(chunk.text) for chunk in chunks]
    assert min(lengths) > 600
    assert max(lengths) < 1_250


def test_abbreviations_do_not_end_a_sentence() -> None:
    sentence = "Согласно п. 5.2 договора от 12 марта 2025 г. Покупатель Иванов И. И. оплачивает товар, т. е. 100 тыс. рублей, по адресу ул. Ленина. "
    for chunk in chunks_of((sentence * 40).strip()):
        assert chunk.text.startswith("Согласно")
        assert chunk.text.endswith("Ленина.")


def test_a_major_heading_starts_a_chunk_and_names_it() -> None:
    body = SENTENCE * 5
    chunks = chunks_of(f"# Contract\n\nIntro. {body}\n\n## 1. Payment\n\n{body}\n\n### 1.1 Interest\n\nShort.\n\n## 2. Term\n\n{body}")
    assert [chunk.heading_path for chunk in chunks] == [("Contract",), ("Contract", "1. Payment"), ("Contract", "2. Term")]
    assert chunks[1].text.startswith("## 1. Payment")
    assert "### 1.1 Interest\n\nShort." in chunks[1].text


def test_a_heading_is_never_left_alone_at_the_end() -> None:
    text = "\n\n".join(f"### Part {number}\n\n{SENTENCE * 4}" for number in range(40))
    for chunk in chunks_of(text):
        assert not chunk.text.splitlines()[-1].startswith("#")


def test_tiny_sections_share_a_chunk() -> None:
    text = "\n\n".join(f"## Q{number}\n\nYes." for number in range(400))
    assert max(len(chunk.text) for chunk in chunks_of(text)) >= 100
    assert len(chunks_of(text)) < 100


def test_the_later_parts_of_a_table_carry_its_header() -> None:
    header = "| Item | Price |\n| --- | --- |"
    rows = [f"| Profile number {number} of anodised aluminium | {number}.50 |" for number in range(100)]
    chunks = chunks_of("Prices:\n\n" + "\n".join([header, *rows]))
    assert chunks[0].text.startswith(f"Prices:\n\n{header}\n{rows[0]}")
    assert [chunk.context for chunk in chunks] == ["", *[header] * (len(chunks) - 1)]
    for chunk in chunks:
        assert all(line.startswith("|") and line.endswith("|") for line in chunk.text.splitlines()[2:])


def test_a_list_keeps_its_lead_in() -> None:
    items = "\n".join(f"- item number {number} of the list" for number in range(20))
    chunks = chunks_of(f"{SENTENCE * 8}\n\nThe tenant must:\n\n{items}")
    (owner,) = [chunk for chunk in chunks if "The tenant must:" in chunk.text]
    assert "The tenant must:\n\n- item number 0" in owner.text


def test_pages_end_chunks_unless_a_sentence_runs_over() -> None:
    ended = DocumentText.of([ParsedPage(1, SENTENCE * 4), ParsedPage(2, SENTENCE * 4)])
    assert [chunk.page for chunk in chunk_document(ended)] == [1, 2]
    running = DocumentText.of([ParsedPage(1, SENTENCE * 4 + "The seller must"), ParsedPage(2, "deliver the goods in time. " + SENTENCE * 2)])
    assert [chunk.page for chunk in chunk_document(running)] == [1]


def test_small_slides_share_a_chunk_but_not_all_of_them() -> None:
    deck = DocumentText.of(ParsedPage(number, f"## Slide {number}\n\n- plan met\n- scrap fell") for number in range(1, 31))
    chunks = chunk_document(deck)
    assert 3 < len(chunks) < 30
    assert all(first.page < second.page for first, second in pairwise(chunks) if first.page and second.page)


def test_white_space_has_no_chunks() -> None:
    assert chunks_of(" \n\t\n ") == []
