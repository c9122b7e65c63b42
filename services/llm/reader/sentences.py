"""Cutting a passage into units that can be quoted: sentences, list items, headings and table rows, offsets preserved.

Owns boundaries for Russian and English text and for the Markdown that the parsers emit. Does not own which unit is quoted.

Invariants:
    1. Units are in order, do not overlap, and hold no white space at either end.
    2. Every character outside all units is white space or a table's separator row.
    3. A unit is at most `LONGEST_UNIT` characters, except a table row, which is never cut.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LONGEST_UNIT: Final = 600


class UnitKind(StrEnum):
    """What a unit is in the text."""

    PROSE = "prose"
    HEADING = "heading"
    ROW = "row"


@dataclass(frozen=True, slots=True)
class Unit:
    """`text[start:end]`; for a table row `header` is the (start, end) of the table's first row, otherwise None."""

    start: int
    end: int
    kind: UnitKind
    header: tuple[int, int] | None = None


_LINE: Final = re.compile(r"[^\n]+")
_ROW: Final = re.compile(r"\s*\|.*\|\s*")
_SEPARATOR_ROW: Final = re.compile(r"[\s|:+=-]+")
_HEADING: Final = re.compile(r"\s*#{1,6}\s")
_ITEM: Final = re.compile(r"\s*(?:[-*•–—]|\(?\d{1,3}[.)]|\d{1,3}(?:\.\d{1,3})+\.?|\(?[a-zа-я]\))\s")
_BOUNDARY: Final = re.compile(r"(?<![.!?…])(?P<stop>[.!?…]++)[\"'»”’)\]]*+\s++(?=[\"'«„“‘(\[]*[^\W_a-zа-яё])")
_LAST_WORD: Final = re.compile(r"[\w.’'-]+$")
_FIRST_WORD: Final = re.compile(r"[^\W\d_]+")
_CUT: Final = re.compile(r";\s+|\s+")

_NEVER_LAST: Final = frozenset(
    """mr mrs ms dr prof st gen col lt sgt capt rev hon sen rep gov pres no nos vs e.g i.e cf fig figs eq sec art arts vol
    ch pp approx est jan feb mar apr jun jul aug sep sept oct nov dec messrs
    т.е т.к т.н см ср им ул пр пер д корп стр п пп ст гл рис табл проф акад доц гр тов тел напр пос обл р-н оз св ред
    изд вып инв""".split()  # noqa: SIM905  a word list reads better as text
)
"""Abbreviations that introduce something, so that a full stop after them ends no sentence."""
_SOMETIMES_LAST: Final = frozenset("inc ltd co corp jr sr llc plc u.s u.k u.n a.m p.m d.c u.s.a ph.d b.c a.d".split())  # noqa: SIM905  a word list reads better as text
"""Abbreviations that may end a sentence; they do when a word follows that often starts one."""
_STARTERS: Final = frozenset(
    """the this that these those it he she they we in on at by for from as if when while after before although however
    but and there his her their its our a an you i no all each any such one""".split()  # noqa: SIM905  a word list reads better as text
)


def split_units(text: str) -> list[Unit]:
    """All units of `text`, in order; an empty list for blank text."""
    units: list[Unit] = []
    for start, end, kind, header in _blocks(text):
        if kind is UnitKind.PROSE:
            units.extend(_sentences(text, start, end))
        else:
            units.append(Unit(*_trimmed(text, start, end), kind, header))
    return units


def _blocks(text: str) -> Iterator[tuple[int, int, UnitKind, tuple[int, int] | None]]:
    """Return runs of lines that belong together: a paragraph, a list item, a heading, a table row."""
    open_block: tuple[int, int] | None = None
    header: tuple[int, int] | None = None
    previous_end = 0
    for match in _LINE.finditer(text):
        start, end = match.span()
        line = match.group()
        if not line.strip():
            continue
        row, heading = bool(_ROW.fullmatch(line)), bool(_HEADING.match(line))
        adjacent = text.count("\n", previous_end, start) <= 1
        joins = adjacent and not row and not heading and not _ITEM.match(line)
        if open_block and not joins:
            yield (*open_block, UnitKind.PROSE, None)
            open_block = None
        if row:
            if not _SEPARATOR_ROW.fullmatch(line):
                yield start, end, UnitKind.ROW, header
                header = header or _trimmed(text, start, end)
        else:
            header = None
            if heading:
                yield start, end, UnitKind.HEADING, None
            else:
                open_block = (open_block[0] if open_block else start, end)
        previous_end = end
    if open_block:
        yield (*open_block, UnitKind.PROSE, None)


def _sentences(text: str, start: int, end: int) -> Iterator[Unit]:
    item = _ITEM.match(text, start, end)
    first = start
    for match in _BOUNDARY.finditer(text, item.end() if item else start, end):
        if _ends_sentence(text, first, match):
            yield from _bounded(text, first, match.end())
            first = match.end()
    yield from _bounded(text, first, end)


def _ends_sentence(text: str, first: int, match: re.Match[str]) -> bool:
    if match.group("stop") != ".":
        return True
    found = _LAST_WORD.search(text, max(first, match.start() - 40), match.start())
    if not found:
        return True
    word = found.group().lower().lstrip("'’-")
    follower = _FIRST_WORD.search(text, match.end(), match.end() + 20)
    next_word = follower.group().lower() if follower else ""
    if word in {"г", "гг", "в", "вв"}:  # «1998 г. Компания …» ends, «г. Москва» does not
        return text[max(first, found.start() - 6) : found.start()].rstrip()[-1:].isdigit() or word in {"гг", "вв"}
    if word in _SOMETIMES_LAST:
        return next_word in _STARTERS
    initial = len(word) == 1 and word.isalpha()  # A. S. Pushkin, т. ч.
    return word not in _NEVER_LAST and not (initial and next_word not in _STARTERS)


def _bounded(text: str, start: int, end: int) -> Iterator[Unit]:
    """One unit, or several when the sentence is longer than a quote may be."""
    start, end = _trimmed(text, start, end)
    while end - start > LONGEST_UNIT:
        cuts = list(_CUT.finditer(text, start + LONGEST_UNIT // 3, start + LONGEST_UNIT))
        semicolons = [m.end() for m in cuts if m.group().startswith(";")]
        cut = semicolons[-1] if semicolons else cuts[-1].end() if cuts else start + LONGEST_UNIT
        yield Unit(*_trimmed(text, start, cut), UnitKind.PROSE)
        start, end = _trimmed(text, cut, end)
    if end > start:
        yield Unit(start, end, UnitKind.PROSE)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
