"""Source marks inside data: ``[1]`` in a string points to source 1, or is removed. Pure.

The same promise as the chat path's filter gives for streaming text (``services/router/citations``), in its simplest form: strings of data are whole, so
nothing has to be held back, and they hold no code. An array of numbers, ``[1]``, is data and no mark.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

_MARK: Final = re.compile(
    r"[ \t]?[\[【［〔⟦]\s*(?:\^|source\s*|sources\s*|источник\s*|№\s*)?(\d{1,6}(?:\s*[,;–—-]\s*\d{1,6})*)\s*(?:†[^\]】]{0,40})?[\]】］〕⟧]",
    re.IGNORECASE,
)
_MOST_OF_A_RANGE: Final = 40


@dataclass(slots=True)
class Marks:
    """Marks of one answer.

    Attributes:
        allowed: how many sources there are; their numbers are 1 to this.
        used: valid numbers in the order of their first use.
        invented: how many were removed.
    """

    allowed: int
    used: list[int] = field(default_factory=list)
    invented: int = 0

    def checked(self, value: object) -> object:
        """``value`` with every mark in its strings written ``[n]`` or removed. Names of properties are left alone."""
        if isinstance(value, str):
            return _MARK.sub(self._replaced, value)
        if isinstance(value, list):
            return [self.checked(item) for item in value]
        if isinstance(value, dict):
            return {name: self.checked(item) for name, item in value.items()}
        return value

    def _replaced(self, match: re.Match[str]) -> str:
        blank = match.group()[0] if match.group()[0] in " \t" else ""
        kept = []
        for number in _numbers(match.group(1)):
            if 1 <= number <= self.allowed:
                kept.append(number)
                if number not in self.used:
                    self.used.append(number)
            else:
                self.invented += 1
        return blank + "".join(f"[{number}]" for number in kept) if kept else ""


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for part in re.split(r"\s*[,;]\s*", unicodedata.normalize("NFKC", text)):
        ends = [int(end) for end in re.split(r"\s*[–—-]\s*", part) if end.isdecimal()]
        if ends:
            numbers.extend(range(ends[0], min(ends[-1], ends[0] + _MOST_OF_A_RANGE) + 1) if ends[0] <= ends[-1] else ends)
    return numbers
