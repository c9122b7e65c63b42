"""Every ``[n]`` that a chat model emits is checked against the sources it was given, while it streams.

Owns: finding citation marks across token boundaries, removing those that point nowhere, naming those that are used.
Marks: ``[1]``, ``[1, 3]``, ``[1][2]``, ``[2-4]``; a list keeps its valid members. Text inside a fenced code block, and an index such as
``a[0]`` inside inline code, is code and not a mark.

Invariants:
- Outside code, what leaves here holds no ``[n]`` with n outside ``allowed``.
- Nothing but marks is ever changed, and at most ``_LONGEST_MARK`` characters are held back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

_LONGEST_MARK: Final = 40
_MARK: Final = re.compile(r"[ \t]?\[\s*\^?\s*(\d{1,4}(?:\s*[,;–-]\s*\d{1,4}){0,9})\s*\]")
_UNFINISHED: Final = re.compile(r"[ \t]?\[[\s\d,;^–-]*$|[ \t]$")
_OPEN: Final = re.compile(r"\[[\s\d,;^–-]*$")
_LIST: Final = re.compile(r"\s*[,;]\s*")
_RANGE: Final = re.compile(r"\s*[–-]\s*")
_FENCE: Final = re.compile(r"^[ \t]*```", re.MULTILINE)


class CitationFilter:
    """Checks one answer.

    Attributes:
        used: valid numbers in the order of their first use.
        invented: how many numbers were removed.
    """

    def __init__(self, allowed: Collection[int]) -> None:
        self._allowed = frozenset(allowed)
        self._held = ""
        self._line = ""
        self._fenced = False
        self.used: list[int] = []
        self.invented = 0

    def allow(self, numbers: Collection[int]) -> None:
        """Replace the numbers that exist (the model has named its own quotes)."""
        self._allowed = frozenset(numbers)

    def feed(self, pieces: Sequence[str]) -> tuple[str, ...]:
        """Checked pieces; boundaries are kept where no mark is concerned."""
        if not self._held and not any("[" in piece for piece in pieces):
            return self._plain(pieces)
        return tuple(checked for piece in pieces if (checked := self._check(piece)))

    def _plain(self, pieces: Sequence[str]) -> tuple[str, ...]:
        """The usual case: no mark anywhere."""
        for piece in pieces:
            self._follow(piece)
        return tuple(pieces)

    def _check(self, piece: str) -> str:
        text = self._held + piece
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished and len(text) - unfinished.start() <= _LONGEST_MARK else len(text)
        self._held, text = text[cut:], text[:cut]
        return self._replace(text)

    def close(self) -> str:
        """What was held back when the answer ended."""
        text, self._held = self._held, ""
        return self._replace(text)

    def _replace(self, text: str) -> str:
        out, position = [], 0
        for match in _MARK.finditer(text):
            out.append(text[position : match.start()])
            self._follow(text[position : match.start()])
            mark = match.group() if self._is_code(match.group()) else self._checked(match)
            out.append(mark)
            self._follow(mark)
            position = match.end()
        out.append(text[position:])
        self._follow(text[position:])
        return "".join(out)

    def _checked(self, match: re.Match[str]) -> str:
        blank = match.group()[: match.group().index("[")]
        kept: list[int] = []
        for number in _numbers(match.group(1)):
            if number in self._allowed:
                kept.append(number)
                if number not in self.used:
                    self.used.append(number)
            else:
                self.invented += 1
        if kept:
            return blank + "".join(f"[{number}]" for number in kept)
        return "…" if _OPEN.search(self._line) else ""  # "[7[9]]" must not become "[7]"

    def _is_code(self, mark: str) -> bool:
        if self._fenced:
            return True
        inside_inline = self._line.count("`") % 2 == 1
        return inside_inline and mark.startswith("[") and bool(self._line) and (self._line[-1].isalnum() or self._line[-1] in "_])")

    def _follow(self, text: str) -> None:
        """Keep track of the current line and of code fences."""
        if "\n" not in text:
            self._line = (self._line + text)[-2_000:]
            return
        lines = (self._line + text).split("\n")
        for line in lines[:-1]:
            if _FENCE.match(line):
                self._fenced = not self._fenced
        self._line = lines[-1][-2_000:]


def _numbers(inside: str) -> list[int]:
    numbers: list[int] = []
    for part in _LIST.split(inside):
        ends = [int(end) for end in _RANGE.split(part)]
        low, high = ends[0], ends[-1]
        numbers.extend(range(low, min(high, low + 20) + 1) if high >= low else (low, high))
    return numbers
