"""Schemas filled by the real reader: its quotes are the values, with their places; nothing is invented."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from appliance.contracts.sgr.v1.api import FormatRequest
from appliance.kit.errors import ApplianceError
from services.llm.reader_chat_model import ReaderChatModel
from services.sgr.quoted_values import dates_in, numbers_in
from tests.unit.sgr.sgr_bed import Shelf, made, passage, service

LEASE = (
    "The lease between Romashka LLC and Vector LLC was signed on 5 March 2024. "
    "The monthly rent is 120,500 roubles and is paid by bank transfer. "
    "The penalty for late payment is 0.5 percent of the rent for each day. "
    "The notice period for termination is 60 days."
)
DOGOVOR = "Договор аренды подписан 12 апреля 2023 года. Арендная плата составляет 85 000,50 рублей в месяц. Срок уведомления о расторжении составляет 30 дней."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "signed": {"type": "string", "format": "date", "title": "When was the lease signed?"},
        "rent": {"type": "number", "title": "Monthly rent", "description": "What is the monthly rent?"},
        "notice": {"type": "integer", "description": "What is the notice period for termination?"},
        "means": {"enum": ["cash", "bank transfer"], "description": "How is the rent paid?"},
        "penalty": {"type": "string", "description": "What is the penalty for late payment?"},
        "insurance": {"type": ["string", "null"], "description": "Which insurance company covers earthquakes?"},
    },
    "required": ["signed", "rent", "notice", "insurance"],
}


def reader(*texts: str, language: str = "en", **changes: Any) -> Any:
    shelf = Shelf([passage(number, text) for number, text in enumerate(texts, 1)])
    return made(service(ReaderChatModel(None, None), shelf), FormatRequest(**{"prompt": "lease", "schema": SCHEMA, "language": language, **changes}))


def test_fields_are_quotes_with_types_and_places() -> None:
    result, steps = reader(LEASE)
    data = result.data
    assert (data["signed"], data["rent"], data["notice"], data["means"]) == ("2024-03-05", 120500, 60, "bank transfer")
    assert "0.5 percent" in data["penalty"]
    assert data["insurance"] is None
    assert result.enforced_by == "quoting"
    for place in result.citations:
        assert LEASE[place.start - 100 : place.end - 100] == place.quote
    assert [step.name for step in steps] == ["search", "generate", "validate"]


def test_russian_documents_fill_the_same_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "signed": {"type": "string", "format": "date", "description": "Когда подписан договор аренды?"},
            "rent": {"type": "number", "description": "Какова арендная плата?"},
            "notice": {"type": "integer", "description": "Каков срок уведомления о расторжении?"},
        },
        "required": ["signed", "rent", "notice"],
    }
    assert reader(DOGOVOR, language="ru", schema=schema)[0].data == {"signed": "2023-04-12", "rent": 85000.5, "notice": 30}


def test_a_required_field_without_an_answer_is_a_clear_error() -> None:
    schema = {
        "type": "object",
        "properties": {"captain": {"type": "string", "description": "Who is the captain of the ship?"}},
        "required": ["captain"],
    }
    with pytest.raises(ApplianceError, match=r"schema_unsatisfied.*captain"):
        reader(LEASE, schema=schema)


def test_a_list_holds_each_place_that_answers() -> None:
    schema = {
        "type": "object",
        "properties": {
            "payments": {
                "type": "array",
                "description": "What is the penalty for late payment?",
                "items": {"type": "object", "properties": {"percent": {"type": "number"}, "text": {"type": "string"}}, "required": ["percent"]},
            }
        },
        "required": ["payments"],
    }
    rows = reader(LEASE, schema=schema)[0].data["payments"]
    assert rows[0]["percent"] == 0.5


def test_a_draft_is_the_source_when_there_is_one() -> None:
    result, _ = reader(draft=LEASE)
    assert result.data["rent"] == 120500
    assert result.citations[0].document_name == "draft"


@pytest.mark.parametrize(
    ("part", "keyword"),
    [
        ({"type": "boolean"}, "type"),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "type"),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "type"),
        ({"type": "string", "format": "email"}, "format"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}, "type"),
    ],
)
def test_what_needs_judgement_or_invention_is_refused_by_keyword_and_place(part: dict[str, Any], keyword: str) -> None:
    with pytest.raises(ApplianceError, match="schema_unsupported") as caught:
        reader(LEASE, schema={"type": "object", "properties": {"x": part}})
    assert caught.value.context["keyword"] == keyword
    assert str(caught.value.context["pointer"]).startswith("/x")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("4.2. The fee is 1 234,5 roubles", [1234.5]),
        ("1,234.50 and -3", [1234.5, -3.0]),
        ("12 млн рублей за 2 года", [12e6, 2.0]),
        ("on 5 March 2024 and 2024-01-02 and 01.02.2024", []),
        ("ISO-9001, GOST 34.602-89, room B12", []),
        ("85 000,50 руб.", [85000.5]),
    ],
)
def test_numbers_that_stand_for_themselves(text: str, numbers: list[float]) -> None:
    assert list(numbers_in(text)) == numbers


def test_dates_in_both_languages_and_none_that_do_not_exist() -> None:
    text = "«05» марта 2024 г., 31.02.2024, March 7th, 2023, 2022-12-31, 1 of May 2021, 9 мая 2020"
    assert list(dates_in(text)) == [date(2024, 3, 5), date(2023, 3, 7), date(2022, 12, 31), date(2021, 5, 1), date(2020, 5, 9)]
