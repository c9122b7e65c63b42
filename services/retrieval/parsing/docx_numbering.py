"""Numbers that Word shows but does not store: ``5.2.`` before a clause is computed here from its list definition.

Contracts are cited by clause number, so the number must be in the text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from services.retrieval.parsing.ooxml import W, attribute, children, first

_PLACEHOLDER: Final = re.compile(r"%(\d)")
_MOST_LEVELS: Final = 9
_ROMAN: Final = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"))
_ROMAN_ONES: Final = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
_MOST_ROMAN: Final = 3999
_RUSSIAN: Final = "абвгдежзиклмнопрстуфхцчшщэюя"
_LATIN: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a list: ``decimal``/``bullet``/…, the pattern (``%1.%2.``) and the first number."""

    form: str
    pattern: str
    start: int


class Numbering:
    """Counts list paragraphs the way Word does.

    Args:
        root: ``w:numbering`` element, or None when the document has no lists.
    """

    def __init__(self, root: Any | None) -> None:
        self._levels: dict[str, dict[int, Level]] = {}
        self._abstract_of: dict[str, str] = {}
        self._restarted: set[str] = set()
        self._counts: dict[str, dict[int, int]] = defaultdict(dict)
        if root is not None:
            self._read(root)

    def _read(self, root: Any) -> None:
        for item in children(root, "abstractNum"):
            levels = {_number(attribute(level, "ilvl")): _level(level) for level in children(item, "lvl")}
            self._levels[attribute(item, "abstractNumId") or ""] = levels
        for item in children(root, "num"):
            link = first(item, "abstractNumId")
            if link is not None:
                number_id = attribute(item, "numId") or ""
                self._abstract_of[number_id] = attribute(link, "val") or ""
                if first(item, "lvlOverride", "startOverride") is not None:
                    self._restarted.add(number_id)

    def label(self, number_id: str, depth: int) -> str | None:
        """The label of the next paragraph of list ``number_id`` at ``depth``.

        ``-`` for bullets, ``5.2.`` for numbers, None when the list is not defined (Word shows no number either).
        """
        abstract = self._abstract_of.get(number_id, "")
        levels = self._levels.get(abstract, {})
        level = levels.get(depth)
        if level is None or depth >= _MOST_LEVELS:
            return None
        counts = self._counts[number_id if number_id in self._restarted else f"abstract {abstract}"]
        counts[depth] = counts.get(depth, level.start - 1) + 1
        for deeper in [key for key in counts if key > depth]:
            del counts[deeper]
        if level.form in {"bullet", "none"}:
            return "-" if level.form == "bullet" else ""
        return _PLACEHOLDER.sub(lambda found: _shown(levels, counts, int(found.group(1)) - 1), level.pattern)


def _level(element: Any) -> Level:
    def value(name: str) -> str:
        found = element.find(f"{W}{name}")
        return "" if found is None else attribute(found, "val") or ""

    return Level(value("numFmt") or "decimal", value("lvlText"), _number(value("start"), 1))


def _number(text: str | None, default: int = 0) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 7 else default


def _shown(levels: dict[int, Level], counts: dict[int, int], depth: int) -> str:
    level = levels.get(depth)
    if level is None:
        return ""
    return _formatted(counts.get(depth, level.start), level.form)


def _formatted(number: int, form: str) -> str:
    if form in {"upperRoman", "lowerRoman"} and 0 < number <= _MOST_ROMAN:
        roman = _roman(number)
        return roman if form == "upperRoman" else roman.lower()
    for letters, lower, upper in ((_LATIN, "lowerLetter", "upperLetter"), (_RUSSIAN, "russianLower", "russianUpper")):
        if form in {lower, upper} and number > 0:
            letter = letters[(number - 1) % len(letters)]
            return letter if form == lower else letter.upper()
    if form == "decimalZero":
        return f"{number:02d}"
    return str(number)


def _roman(number: int) -> str:
    out = ""
    for value, letters in _ROMAN:
        out += letters * (number // value)
        number %= value
    return out + _ROMAN_ONES[number]
