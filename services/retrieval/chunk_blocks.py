"""Cut Markdown text into blocks (headings, paragraphs, lists, tables) and blocks into units, all as offsets.

Everything here is one pass over the text with bounded look-ahead: no input makes it slower than linear.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["heading", "paragraph", "list", "table"]
Span = tuple[int, int]

_HEADING: Final = re.compile(r"(#{1,6})[ \t]+(?=\S)")
_MAX_HEADING: Final = 300
_ITEM: Final = re.compile(r"[ \t]{0,32}(?:[-*+•]|\d{1,3}(?:\.\d{1,3}){0,4}[.)]|\d{1,3}(?:\.\d{1,3}){1,4}|[a-zа-я]\))[ \t]+(?=\S)")
_FENCE: Final = ("```", "~~~")
_SEPARATOR_SIGNS: Final = frozenset("|-: \t")
_SENTENCE_END: Final = re.compile(r"[.!?…]{1,8}[)\]»”\"']{0,4}(?=\s)")
_CLOSES: Final = ")]»”\"'"
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(«\"])(?:[A-ZА-ЯЁ]|т|е|д|п|пп|г|гг|ул|им|стр|ст|руб|коп|тыс|млн|млрд|см|рис|табл|др|пр|просп|обл|кв|корп|"
    r"e\.g|i\.e|etc|vs|Mr|Mrs|Ms|Dr|Prof|No|Art|Sec|cf|Fig|approx|т\.\s?[едкпч]|и\s?т)\.$"
)
_ABBREVIATION_WITHIN: Final = 10


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of structure: ``text[start:end]`` without blank edges.

    Attributes:
        level, title: of a heading (level 1..6), else 0 and empty.
        header_end: of a table, the end of its header and separator rows; else ``start``.
    """

    kind: Kind
    start: int
    end: int
    level: int = 0
    title: str = ""
    header_end: int = 0

    @property
    def size(self) -> int:
        """Characters."""
        return self.end - self.start


def read_blocks(text: str) -> Iterator[Block]:
    """All blocks of ``text`` in order; together they hold every character that is not white space."""
    open_kind: Kind | None = None
    start = end = 0
    fenced = False
    for left, right in _lines(text):
        if left == right:
            if open_kind is not None:
                yield _close(text, open_kind, start, end)
            open_kind = None
            continue
        kind = _kind_of(text, left, right, open_kind, fenced)
        if text.startswith(_FENCE, left):
            fenced = not fenced
        if kind == "heading" or (open_kind is not None and kind != open_kind):
            if open_kind is not None:
                yield _close(text, open_kind, start, end)
            open_kind = None
        if kind == "heading":
            yield _heading(text, left, right)
            continue
        if open_kind is None:
            open_kind, start = kind, left
        end = right
    if open_kind is not None:
        yield _close(text, open_kind, start, end)


def _lines(text: str) -> Iterator[Span]:
    """Lines without line ends and outer blanks; blank lines as empty spans."""
    at, size = 0, len(text)
    while at < size:
        stop = text.find("\n", at)
        stop = size if stop < 0 else stop
        yield trimmed(text, at, stop)
        at = stop + 1


def trimmed(text: str, start: int, end: int) -> Span:
    """The span without white space at its edges; empty spans end where they start."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _kind_of(text: str, left: int, right: int, open_kind: Kind | None, fenced: bool) -> Kind:
    if text[left] == "#" and not fenced and right - left <= _MAX_HEADING and _HEADING.match(text, left, right):
        return "heading"
    if text[left] == "|" and right - left > 1:
        return "table"
    if _ITEM.match(text, left, right):
        return "list"
    return "list" if open_kind == "list" else "paragraph"


def _heading(text: str, left: int, right: int) -> Block:
    marks = len(text[left:right]) - len(text[left:right].lstrip("#"))
    title = text[left + marks : right].strip().rstrip("#").strip().replace("**", "").replace("`", "")
    return Block("heading", left, right, marks, title)


def _close(text: str, kind: Kind, start: int, end: int) -> Block:
    return Block(kind, start, end, header_end=_header_end(text, start, end) if kind == "table" else start)


def _header_end(text: str, start: int, end: int) -> int:
    """End of the separator row of a table; ``start`` when the table has no header."""
    first = text.find("\n", start, end)
    if first < 0:
        return start
    second = text.find("\n", first + 1, end)
    second = end if second < 0 else second
    return second if set(text[first + 1 : second]) <= _SEPARATOR_SIGNS else start


def units_of(text: str, block: Block, most: int) -> Iterator[Span]:
    """The parts of a block that should stay whole, none longer than ``most`` characters.

    Rows of a table (the header with its first row when that fits), items of a list, sentences of a paragraph.
    """
    for start, end in _natural_units(text, block, most):
        if end - start <= most:
            yield start, end
        elif block.kind == "paragraph":
            yield from _cut(text, start, end, most)
        else:
            for left, right in _sentences(text, start, end):
                yield from _cut(text, left, right, most)


def _natural_units(text: str, block: Block, most: int) -> Iterator[Span]:
    if block.kind == "table":
        return _rows(text, block, most)
    if block.kind == "list":
        return _items(text, block)
    return _sentences(text, block.start, block.end)


def _rows(text: str, block: Block, most: int) -> Iterator[Span]:
    rows = (trimmed(text, left + block.header_end, right + block.header_end) for left, right in _lines(text[block.header_end : block.end]))
    rows_left = (row for row in rows if row[0] < row[1])
    if block.header_end > block.start:
        first = next(rows_left, None)
        if first is not None and first[1] - block.start <= most:
            yield block.start, first[1]
        else:
            yield block.start, block.header_end
            if first is not None:
                yield first
    yield from rows_left


def _items(text: str, block: Block) -> Iterator[Span]:
    """List items with their continuation lines."""
    start = end = block.start
    for left, right in _lines(text[block.start : block.end]):
        begin = left + block.start
        if begin > block.start and _ITEM.match(text, begin, right + block.start):
            yield start, end
            start = begin
        end = right + block.start
    yield start, end


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    at = start
    for found in _SENTENCE_END.finditer(text, start, end):
        stop = found.end()
        if stop <= at or not _ends_sentence(text, at, stop, end):
            continue
        yield trimmed(text, at, stop)
        at = stop
    left, right = trimmed(text, at, end)
    if left < right:
        yield left, right


def _ends_sentence(text: str, start: int, stop: int, end: int) -> bool:
    """Whether the stop before ``stop`` ends a sentence: no small letter follows and no abbreviation precedes."""
    following = text[stop : min(end, stop + 8)].lstrip()
    if following and following[0].islower():
        return False
    if text[stop - 1] in _CLOSES or text[stop - 1] != ".":
        return True
    return _ABBREVIATION.search(text[max(start, stop - _ABBREVIATION_WITHIN) : stop]) is None


def _cut(text: str, start: int, end: int, most: int) -> Iterator[Span]:
    """Cut a span longer than ``most`` at white space, or anywhere when it has none."""
    while end - start > most:
        stop = max(text.rfind(sign, start + most // 2, start + most) for sign in (" ", "\n", "\t"))
        stop = stop if stop > start else _between_letters(text, start, start + most)
        left, right = trimmed(text, start, stop)
        if left < right:
            yield left, right
        start = stop
    left, right = trimmed(text, start, end)
    if left < right:
        yield left, right


def _between_letters(text: str, start: int, stop: int) -> int:
    """A place at or before ``stop`` that does not part a letter from its accents."""
    for at in range(stop, max(start + 1, stop - 16), -1):
        if not unicodedata.combining(text[at]):
            return at
    return stop


def goes_on(text: str, before: int, after: int) -> bool:
    """Whether a sentence runs from the text ending at ``before`` into the text starting at ``after``."""
    last = text[before - 1]
    return (last.isalnum() or last in ",-–—") and text[after].islower()
