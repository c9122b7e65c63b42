"""Every citation mark that a chat model emits is checked against the sources it was given, while it streams.

Owns: following the text (lines, code), holding back what may become a mark, removing those that point nowhere, naming those that are used. How a mark looks is
in ``citation_marks``; a mark that stays is written ``[n]``, a list as ``[1][3]``. Text inside a fenced code block, and an index such as ``a[0]`` inside
a closed inline code span, is code and not a mark.

Invariants:
- Outside code, what leaves here holds no mark with a number outside ``allowed``.
- Nothing but marks is ever changed, and at most ``_LONGEST_HELD`` characters are held back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from services.router.citation_marks import MARK, OPEN, OPENERS, is_bare, may_become_mark, numbers_in

_LONGEST_HELD: Final = 160
_LOOKALIKES: Final = frozenset(OPENERS)
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$")
_UNSAFE_JOIN: Final = re.compile(rf"[{re.escape(OPENERS)}][\d\s,;^–-]*$")


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
        self._fence = ""
        self.used: list[int] = []
        self.invented = 0

    def allow(self, numbers: Collection[int]) -> None:
        """Replace the numbers that exist (the model has named its own quotes)."""
        self._allowed = frozenset(numbers)

    def feed(self, pieces: Sequence[str]) -> tuple[str, ...]:
        """Checked pieces; boundaries are kept where no mark is concerned."""
        if not self._held and not any(not _LOOKALIKES.isdisjoint(piece) or "\\" in piece for piece in pieces):
            for piece in pieces:
                self._follow(piece)
            return tuple(pieces)
        return tuple(checked for piece in pieces if (checked := self._check(piece)))

    def close(self) -> str:
        """What was held back when the answer ended."""
        text, self._held = self._held, ""
        return self._replace(text, ended=True)[0]

    def _check(self, piece: str) -> str:
        text = self._held + piece
        self._held = ""
        cut = self._first_open(text)
        checked, rest = self._replace(text[:cut], ended=False)
        held = rest + text[cut:]
        if len(held) <= _LONGEST_HELD:
            self._held = held
            return checked
        return checked + self._give_up(held)

    def _first_open(self, text: str) -> int:
        """Where the text that must wait begins; its length when nothing must."""
        found = OPEN.search(text)
        if found is None or (found.group(1) is not None and not may_become_mark(found.group(1))):
            return len(text)
        return found.start()

    def _give_up(self, held: str) -> str:
        """Too long for a mark. An opener with nothing but numbers and blanks after it loses the bracket: it was made to slip through."""
        match = OPEN.search(held)
        if match is not None and match.group(1) is not None and is_bare(match.group(1)):
            self.invented += 1
            held = held[: match.start(1) - 1] + held[match.start(1) :]
        return self._replace(held, ended=True)[0]

    def _replace(self, text: str, *, ended: bool) -> tuple[str, str]:
        """Checked text, and what must wait because an inline code span is still open around a mark."""
        out: list[str] = []
        position = 0
        for match in MARK.finditer(text):
            numbers = numbers_in(match.group(1))
            if numbers is None:
                continue
            before = text[position : match.start()]
            self._follow(before)
            out.append(before)
            position = match.end()
            in_code = self._in_code(match.group(), text[match.end() :])
            if in_code is None and not ended and len(text) - match.start() < _LONGEST_HELD:
                return "".join(out), text[match.start() :]
            mark = match.group() if in_code else self._checked(match, numbers)
            self._follow(mark)
            out.append(mark)
        self._follow(text[position:])
        return "".join([*out, text[position:]]), ""

    def _checked(self, match: re.Match[str], numbers: Sequence[int]) -> str:
        blank = match.group()[0] if match.group()[0] in " \t" else ""
        kept: list[int] = []
        for number in numbers:
            if number in self._allowed:
                kept.append(number)
                if number not in self.used:
                    self.used.append(number)
            else:
                self.invented += 1
        if kept:
            return blank + "".join(f"[{number}]" for number in kept)
        return "…" if _UNSAFE_JOIN.search(self._line) else ""  # "[7[9]]" must not become "[7]"

    def _in_code(self, mark: str, after: str) -> bool | None:
        """Whether the mark is code; None when that depends on text that has not come yet."""
        if self._fence:
            return True
        attached = mark[0] not in " \t\\" and bool(self._line) and (self._line[-1].isalnum() or self._line[-1] in "_])")
        if self._line.count("`") % 2 == 0 or not attached:
            return False
        rest, newline, _ = after.partition("\n")
        if "`" in rest:
            return True
        return False if newline else None

    def _follow(self, text: str) -> None:
        """Keep track of the current line and of code fences (CommonMark 4.5)."""
        if "\n" not in text:
            self._line = (self._line + text)[-2_000:]
            return
        lines = (self._line + text).split("\n")
        for line in lines[:-1]:
            self._fence = _fence_after(self._fence, line)
        self._line = lines[-1][-2_000:]


def _fence_after(fence: str, line: str) -> str:
    """The fence that is open after ``line``; empty for none."""
    match = _FENCE.match(line)
    if match is None:
        return fence
    marks, info = match.groups()
    if fence:
        closes = marks[0] == fence[0] and len(marks) >= len(fence) and not info.strip()
        return "" if closes else fence
    return "" if marks[0] == "`" and "`" in info else marks
