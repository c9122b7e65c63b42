"""Personal data and secrets: what is found, where exactly, and what is left alone."""

from __future__ import annotations

import json

import pytest

from appliance.guard import checksums
from appliance.guard.plain_text import PlainText
from appliance.guard.scan import look
from demo import content_engineering, content_legal

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.abcDEF012345_-xyz"
FOUND = [
    ("ИНН 7707083893", "inn", "7707083893"),
    ("его ИНН: 500100732259.", "inn", "500100732259"),
    ("500100732259", "inn", "500100732259"),
    ("СНИЛС 112-233-445 95", "snils", "112-233-445 95"),
    ("страховой номер 11223344595", "snils", "11223344595"),
    ("паспорт 4508 123456", "passport_ru", "4508 123456"),
    ("паспорт серия 45 08 № 123456", "passport_ru", "45 08 № 123456"),
    ("серия 4508 номер 123456", "passport_ru", "4508 номер 123456"),
    ("звоните +7 (495) 123-45-67", "phone", "+7 (495) 123-45-67"),
    ("8-916-123-45-67", "phone", "8-916-123-45-67"),
    ("89161234567", "phone", "89161234567"),
    ("тел. (495) 123-45-67", "phone", "495) 123-45-67"),
    ("+44 20 7946 0958", "phone", "+44 20 7946 0958"),
    ("карта 4111 1111 1111 1111", "card", "4111 1111 1111 1111"),
    ("МИР 2200000000000004", "card", "2200000000000004"),
    ("ОГРНИП 304500116000157", "ogrn", "304500116000157"),
    ("р/с 40702810400000000001", "bank_account", "40702810400000000001"),
    ("пишите ivan.petrov@example.ru!", "email", "ivan.petrov@example.ru"),
    (f"Bearer {JWT} ", "jwt", JWT),
    ("ключ sk-abcDEF0123456789abcd,", "api_key", "sk-abcDEF0123456789abcd"),
    ("AKIAIOSFODNN7EXAMPLE", "cloud_key", "AKIAIOSFODNN7EXAMPLE"),
    ("пароль: Qwerty12!", "password", "Qwerty12!"),
    ("пароль: qwerty", "password", "qwerty"),
    ("DB_PASSWORD=hunter2", "password", "hunter2"),
    ("postgres://box:p4ss@db/x", "credentials_in_address", "p4ss"),
    (
        "-----BEGIN PRIVATE KEY-----\nMIIE+x==\n-----END PRIVATE KEY-----",
        "private_key",
        "-----BEGIN PRIVATE KEY-----\nMIIE+x==\n-----END PRIVATE KEY-----",
    ),
]
LEFT_ALONE = [
    "ИНН 7707083894", "инвентарный номер 7707083893", "СНИЛС 112-233-445 96", "4111 1111 1111 1112", "заказ 4508 123456", "2019 2020 2021 2022 2023",
    "1234567890123", "0,1234567890123456", "от 12.05.2024 № 4508", "1 000 000 000 рублей", "версия 10.20.30.40", "пароль: см. журнал", "password: required",
    "password: <your password>", "password: ${DB_PASSWORD}", "token: ********", "sk-xxxxxxxxxxxxxxxxxxxxxxxx", "task-oriented-programming-languages",
    "a @ b", "user@localhost", "https://example.com/a:b@c", "eyJust a word", "пп. 8.1.2.3.4.5.6.7.8.9.1",
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "span"), FOUND, ids=[f"{kind}-{number}" for number, (_, kind, _) in enumerate(FOUND)])
def test_it_is_found_where_it_stands(text: str, kind: str, span: str) -> None:
    hits = [(hit.kind, text[hit.start : hit.end]) for hit in look(text).hits]
    assert (kind, span) in hits


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert look(text).hits == ()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("４１１１ １１１１ １１１１ １１１１", "card"),
        ("4111\u00a01111\u20091111\u202f1111", "card"),
        ("4111\u20111111\u20121111\u20131111", "card"),
        ("41\u200b11 1111\u2060 1111 11\u00ad11", "card"),
        ("٤١١١ ١١١١ ١١١١ ١١١١", "card"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "card"),
        ("ИHH 7707083893", "inn"),  # Latin H
        ("CНИЛC 112 233 445 95", "snils"),
        ("пacпopт 4508 123456", "passport_ru"),
        ("ivan\u200b@example.ru", "email"),
        ("sk\u2011abcDEF0123456789abcd", "api_key"),
        ("пapoль: Qwerty12!", "password"),
    ],
)
def test_disguises_do_not_help(text: str, kind: str) -> None:
    hits = {hit.kind: text[hit.start : hit.end] for hit in look(text).hits}
    assert kind in hits
    if kind == "card":
        assert hits[kind] == text  # all of it, the invisible included


@pytest.mark.parametrize("text", ["plain", "Ёлка — «ель» № 5…", "a\u200bb", "\u0130stanbul ﬁ", "\ufeff\u00a0x", "ｆｕｌｌ", "é\u0301", "\U000e0041x"])
def test_folding_keeps_the_way_back(text: str) -> None:
    plain = PlainText(text)
    assert len(plain.plain) == len(plain.lower)
    spans = [plain.original(place, place + 1) for place in range(len(plain.plain))]
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)


def test_check_digits_catch_every_single_wrong_digit() -> None:
    for check, number in (
        (checksums.inn, "7707083893"),
        (checksums.inn, "500100732259"),
        (checksums.snils, "11223344595"),
        (checksums.luhn, "4111111111111111"),
    ):
        assert check(number)
        for place, digit in enumerate(number):
            wrong = [number[:place] + other + number[place + 1 :] for other in "0123456789" if other != digit]
            assert sum(map(check, wrong)) <= 1  # 10 → 0 of the tax numbers lets one through in places


def test_ordinary_documents_give_next_to_nothing() -> None:
    """The demo library: contracts, manuals, protocols. Telephone numbers, tax numbers of companies and mail addresses in them are real finds."""
    texts = [json.dumps(vars(module), default=str, ensure_ascii=False) for module in (content_engineering, content_legal)]
    hits = [hit for text in texts for hit in look(text).hits]
    assert {hit.kind for hit in hits} <= {"phone", "email", "inn", "bank_account", "ogrn", "hidden_text"}  # one page of HTML hides a line


def test_hostile_lengths_cost_linear_time() -> None:
    """Each of these is quadratic or worse for a careless pattern; the whole of them takes well under a second, a careless one minutes."""
    for unit in ("1 ", "1", "@", "a@", "-----BEGIN ", "password:", "eyJ", "://", "паспорт ", "a.", "\u200b", "ignore ", "игнорируй все ", "<|", "!["):
        look((unit * 200_000)[:60_000])
