"""No document may take the box down: each is refused with its own clear error, and the next one is read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.kit.errors import ApplianceError
from services.retrieval.parsing.limits import DEFAULT_LIMITS, MIB
from services.retrieval.parsing.pool import ParserPool
from tests.hostile.make_documents import DOCUMENTS

LIMITS = replace(DEFAULT_LIMITS, seconds=20.0)
REFUSED = {
    "truncated.pdf": "document_corrupt",
    "garbage.pdf": "document_corrupt",
    "encrypted.pdf": "document_encrypted",
    "endless_pages.pdf": "document_corrupt",
    "endless_form.pdf": "document_corrupt",
    "ten_thousand_pages.pdf": "document_too_long",
    "blank.pdf": "document_empty",
    "picture.pdf": "unsupported_type",
    "text.pdf": "document_corrupt",
    "protected.docx": "document_encrypted",
    "old.doc": "unsupported_type",
    "encrypted_zip.docx": "document_encrypted",
    "bomb.docx": "document_bomb",
    "declared_bomb.xlsx": "document_bomb",
    "lying_bomb.docx": "document_corrupt",
    "many_parts.docx": "document_bomb",
    "huge_directory.docx": "document_bomb",
    "billion_laughs.docx": "document_bomb",
    "billion_laughs_utf16.docx": "document_bomb",
    "billion_laughs.xlsx": "document_bomb",
    "external_entity.docx": "document_bomb",
    "truncated.docx": "document_corrupt",
    "broken_xml.docx": "document_corrupt",
    "deep.docx": "document_corrupt",
    "far_cells.xlsx": "document_too_long",
    "empty.txt": "document_empty",
    "blank.txt": "document_empty",
    "deep.html": "document_bomb",
    "unclosed.html": "document_bomb",
    "random.txt": "unsupported_type",
    "open_quote.csv": "document_corrupt",
    "wide.csv": "document_too_long",
}
READ = sorted(set(DOCUMENTS) - set(REFUSED))


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with ParserPool(1, LIMITS) as running:
        yield running


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    path = tmp_path / "honest.txt"
    path.write_text("Payment is due within 30 days.")
    return path


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_a_hostile_document_is_refused_and_the_next_one_is_read(pool: ParserPool, tmp_path: Path, honest: Path, name: str) -> None:
    DOCUMENTS[name](tmp_path / name)
    begun = time.monotonic()
    with pytest.raises(ApplianceError) as caught:
        await pool.parse(tmp_path / name, name)
    assert caught.value.code == REFUSED[name]
    assert caught.value.hint
    assert time.monotonic() - begun < 15
    assert (await pool.parse(honest, "honest.txt")).text == "Payment is due within 30 days."


@pytest.mark.parametrize("name", READ)
async def test_an_odd_document_is_read_within_its_limits(pool: ParserPool, tmp_path: Path, name: str) -> None:
    DOCUMENTS[name](tmp_path / name)
    document = await pool.parse(tmp_path / name, name)
    text = document.text
    assert text or document.warnings
    assert len(text) < 6_000_000
    assert "\x00" not in text


async def test_a_refusal_for_length_says_how_to_split(pool: ParserPool, tmp_path: Path) -> None:
    DOCUMENTS["ten_thousand_pages.pdf"](tmp_path / "long.pdf")
    with pytest.raises(ApplianceError) as caught:
        await pool.parse(tmp_path / "long.pdf", "long.pdf")
    assert "5,000 pages" in caught.value.hint


async def test_an_oversize_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as out:
        out.truncate(65 * MIB)
    async with ParserPool(1, LIMITS) as pool:
        with pytest.raises(ApplianceError) as caught:
            await pool.parse(path, "large.txt")
    assert caught.value.code == "document_too_long"


async def test_memory_has_an_end(tmp_path: Path, honest: Path) -> None:
    path = tmp_path / "hungry.txt"
    path.write_bytes("слово ".encode() * 3_000_000)
    async with ParserPool(1, replace(LIMITS, address_space_bytes=80 * MIB)) as pool:
        with pytest.raises(ApplianceError) as caught:
            await pool.parse(path, "hungry.txt")
        assert caught.value.code == "document_bomb"
        assert (await pool.parse(honest, "honest.txt")).text


async def test_time_has_an_end(tmp_path: Path, honest: Path) -> None:
    path = tmp_path / "slow.csv"
    path.write_text("1,2,3,4,5,6,7,8\n" * 240_000)
    async with ParserPool(1, replace(LIMITS, seconds=0.3)) as pool:
        with pytest.raises(ApplianceError) as caught:
            await pool.parse(path, "slow.csv")
        assert caught.value.code == "document_timeout"
        assert pool.worker_pids == ()


async def test_the_text_of_a_document_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "long.html"
    path.write_text("<p>" + "word " * 300_000)
    async with ParserPool(1, replace(LIMITS, text_characters=100_000)) as pool:
        with pytest.raises(ApplianceError) as caught:
            await pool.parse(path, "long.html")
    assert caught.value.code == "document_too_long"


async def test_an_external_entity_never_brings_a_file_into_the_text(pool: ParserPool, tmp_path: Path) -> None:
    DOCUMENTS["external_entity.docx"](tmp_path / "x.docx")
    with pytest.raises(ApplianceError) as caught:
        await pool.parse(tmp_path / "x.docx", "x.docx")
    assert "root:" not in str(caught.value)
