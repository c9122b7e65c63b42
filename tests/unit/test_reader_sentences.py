"""Cutting passages into quotable units."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm.reader.sentences import LONGEST_UNIT, UnitKind, split_units


def _cut(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_units(text)]


@given(st.text(alphabet=st.sampled_from('aБ 1.!?\n|-#*«»"г;'), max_size=2000))
def test_units_are_ordered_trimmed_disjoint_and_lose_no_words(text: str) -> None:
    units = split_units(text)
    end = 0
    for unit in units:
        assert end <= unit.start < unit.end
        assert text[unit.start : unit.end] == text[unit.start : unit.end].strip()
        assert unit.kind is not UnitKind.PROSE or unit.end - unit.start <= LONGEST_UNIT
        end = unit.end
    assert sum(c.isalpha() for c in text) == sum(c.isalpha() for part in _cut(text) for c in part)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. Smith of Acme Inc. paid $3.5 at 5 p.m. The end.", ["Mr. Smith of Acme Inc. paid $3.5 at 5 p.m.", "The end."]),
        ("See Fig. 3 and No. 5. J. R. Tolkien wrote.", ["See Fig. 3 and No. 5.", "J. R. Tolkien wrote."]),
        ("В 1998 г. Компания переехала в г. Москва.", ["В 1998 г.", "Компания переехала в г. Москва."]),
        (
            "А. С. Пушкин жил на ул. Мойка, д. 12. Цена 5 тыс. руб., в т. ч. НДС.",
            ["А. С. Пушкин жил на ул. Мойка, д. 12.", "Цена 5 тыс. руб., в т. ч. НДС."],
        ),
        ("Он сказал: «Да.» Потом ушёл.", ["Он сказал: «Да.»", "Потом ушёл."]),
        ("A line\nthat wraps. Next.", ["A line\nthat wraps.", "Next."]),
        ("1. First item.\n2. Second item\n- dash", ["1. First item.", "2. Second item", "- dash"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert _cut(text) == sentences


def test_a_table_row_is_a_unit_that_knows_its_header() -> None:
    text = "# Prices\n| Item | Price |\n|---|---|\n| Pump. New. | 100 |\n\nAfter."
    units = split_units(text)
    assert [unit.kind for unit in units] == [UnitKind.HEADING, UnitKind.ROW, UnitKind.ROW, UnitKind.PROSE]
    assert units[2].header is not None
    assert text[slice(*units[2].header)] == "| Item | Price |"
    assert units[1].header is None


def test_a_sentence_longer_than_a_quote_is_cut_at_a_semicolon() -> None:
    text = "word " * 60 + "; " + "word " * 100
    assert _cut(text)[0].endswith(";")


@pytest.mark.parametrize("part", [".", "!)", ". ", "\n ", "|", "| ", "1. ", "« ", "a "])
def test_hostile_repetition_costs_linear_time(part: str) -> None:
    started = time.perf_counter()
    split_units(part * 50_000)
    assert time.perf_counter() - started < 5
