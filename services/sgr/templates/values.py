"""How values look in a document: dates, numbers, yes and no in the language of the reader; text freed of what XML cannot hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from services.sgr.templates.expressions import Filter

# what XML 1.0 does not allow (production 2), and what reorders text around it unseen (Unicode UAX #9, explicit formatting)
_NO_CHARACTER: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")
_MONTHS: Final = {
    "en": "January February March April May June July August September October November December",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}
_WORDS: Final = {"en": ("yes", "no"), "ru": ("да", "нет")}
_NARROW: Final = "\u00a0"


def is_scalar(value: object) -> bool:
    """Whether a placeholder can show it."""
    return value is None or isinstance(value, str | int | float | bool)


def shown(value: object, filters: tuple[Filter, ...], language: str) -> str:
    """``value``, a scalar or (with ``join``, ``length``) a list, as plain text."""
    for one in filters:
        value = _filtered(value, one, language)
    return clean(_plain(value, language))


def clean(text: str) -> str:
    """``text`` without characters that XML does not allow; line ends as line feeds."""
    return _NO_CHARACTER.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _plain(value: object, language: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return _WORDS.get(language, _WORDS["en"])[0 if value else 1]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _filtered(value: object, one: Filter, language: str) -> object:
    name, arguments = one.name, one.arguments
    if name == "default":
        return arguments[0] if value is None or value in ("", []) else value
    if name == "length":
        return len(value) if isinstance(value, list | str | Mapping) else 0
    if name == "join":
        between = str(arguments[0]) if arguments else ", "
        return between.join(_plain(item, language) for item in value) if isinstance(value, list) else value
    if name == "date":
        return _date(value, language)
    if name in {"number", "percent"}:
        return _number(value, language, arguments[0] if arguments else None, percent=name == "percent")
    text = _plain(value, language)
    return {"upper": text.upper(), "lower": text.lower(), "capitalize": text[:1].upper() + text[1:]}[name]


def _date(value: object, language: str) -> object:
    """An ISO 8601 date in words; anything else stays as it is."""
    try:
        day = date.fromisoformat(str(value)) if len(str(value)) == len("2026-01-31") else datetime.fromisoformat(str(value)).date()
    except ValueError:
        return value
    month = _MONTHS.get(language, _MONTHS["en"]).split()[day.month - 1]
    return f"{day.day} {month} {day.year}{_NARROW + 'г.' if language == 'ru' else ''}"


def _number(value: object, language: str, decimals: object, *, percent: bool) -> object:
    """Digits in groups; anything that is no number stays as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    try:
        number = Decimal(str(value)) * (100 if percent else 1)
        number = round(number, min(12, max(0, int(decimals)))) if isinstance(decimals, int | float) else number
        text = f"{number.normalize() if decimals is None else number:,f}"
    except (InvalidOperation, ValueError, OverflowError):
        return value
    if len(text) > 100:
        return value
    if language == "ru":
        text = text.replace(",", _NARROW).replace(".", ",")
    return f"{text}{_NARROW if language == 'ru' else ''}%" if percent else text
