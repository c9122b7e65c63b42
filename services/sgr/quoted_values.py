"""Values that a quote states: numbers and dates as Russian and English write them. Pure; what is not plainly stated is None, never a guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Final

_MONTHS: Final = {
    "янв": 1, "фев": 2, "мар": 3, "апр": 4, "мая": 5, "май": 5, "июн": 6, "июл": 7, "авг": 8, "сен": 9, "окт": 10, "ноя": 11, "дек": 12,
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_RU_MONTH: Final = r"(?:янв|фев|мар|апр|мая|май|июн|июл|авг|сен|окт|ноя|дек)[а-я]*"
_EN_MONTH: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_MONTH: Final = rf"(?:{_RU_MONTH}|{_EN_MONTH})"
_DATES: Final = re.compile(
    rf"(?<!\d)(?P<iso>\d{{4}}-\d{{2}}-\d{{2}})(?!\d)"
    rf"|(?<![\d.])(?P<dotted>\d{{1,2}}[./]\d{{1,2}}[./]\d{{4}})(?!\d)"
    rf"|(?<!\d)[«\"“]?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[»\"”]?\s+(?:of\s+)?(?P<month>{_MONTH})\s*,?\s+(?P<year>\d{{4}})(?!\d)"
    rf"|\b(?P<month2>{_EN_MONTH})\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s*,?\s+(?P<year2>\d{{4}})(?!\d)",
    re.IGNORECASE,
)
_BLANKS: Final = "  \u202f\u2009"
_NUMBER: Final = re.compile(
    rf"(?<![\w.,/-])(?P<sign>[-−–]?)(?P<whole>\d{{1,3}}(?:[{_BLANKS}]\d{{3}})+|\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d{{1,15}})(?P<part>[.,]\d{{1,9}})?(?![\d\w/]|[.,-]\d)"
    rf"(?:[{_BLANKS}](?P<scale>тыс|млн|млрд|thousand|million|billion)\w*)?",
    re.IGNORECASE,
)
_SCALES: Final = {"тыс": 1e3, "млн": 1e6, "млрд": 1e9, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_SECTION: Final = re.compile(r"^\s*(?:§\s*)?\d+(?:\.\d+)*[.)]\s+")


def dates_in(text: str) -> Iterator[date]:
    """Dates that are written out with day, month and year, in order. ``05.06.2024`` is the fifth of June: day first, as both documents' languages here."""
    for match in _DATES.finditer(text):
        try:
            yield _date(match)
        except ValueError:
            continue


def _date(match: re.Match[str]) -> date:
    if match["iso"]:
        return date.fromisoformat(match["iso"])
    if match["dotted"]:
        day, month, year = re.split(r"[./]", match["dotted"])
        return date(int(year), int(month), int(day))
    if match["day"]:
        return date(int(match["year"]), _MONTHS[match["month"][:3].lower()], int(match["day"]))
    return date(int(match["year2"]), _MONTHS[match["month2"][:3].lower()], int(match["day2"]))


def numbers_in(text: str) -> Iterator[float]:
    """Numbers that stand for themselves, in order: not those of dates, of the section's own number, or inside names such as ISO-9001."""
    text = _SECTION.sub("", _DATES.sub(" ; ", text))
    for match in _NUMBER.finditer(text):
        whole = re.sub(rf"[{_BLANKS},]", "", match["whole"])
        value = float(whole + (match["part"] or "").replace(",", "."))
        scale = _SCALES[match["scale"].lower()] if match["scale"] else 1
        yield (-value if match["sign"] else value) * scale
