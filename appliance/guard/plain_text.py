"""Text as it reads, with the way back to the text as it stands.

Owns: folding of invisible characters, odd spaces, full-width and foreign digits, and of letters of one alphabet inside a word of the other. Detectors look at
``plain`` and ``lower``; what they find is carried back with :meth:`PlainText.original`, so that a mask covers every character of the source.

Invariant: ``plain`` and ``lower`` have the same length, and ``original`` is monotonous.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# anything outside these is looked at one by one; dashes and quotes of ordinary Russian text are ordinary
_ODD: Final = re.compile(r"[^\t-\r -~А-Яа-яЁё«»—–…№“”„’]")
_MIXED: Final = re.compile(r"[A-Za-z][Α-ωЀ-ӿ]|[Α-ωЀ-ӿ][A-Za-z]")
_ANY_LATIN: Final = re.compile(r"[A-Za-z]")
_ANY_OTHER: Final = re.compile(r"[Α-ωЀ-ӿ]")
_MIXED_WORD: Final = re.compile(r"[A-Za-zΑ-ωЀ-ӿ]+")
_TO_LATIN: Final = str.maketrans("АВЕЗІЈЅКМНОРСТУХаеорсухікѕјΑΒΕΖΗΙΚΜΝΟΡΤΥΧαοινρ", "ABE3IJSKMHOPCTYXaeopcyxiksjABEZHIKMNOPTYXaoivp")
_TO_CYRILLIC: Final = str.maketrans("ABEKMHOPCTYXaeopcyxik", "АВЕКМНОРСТУХаеорсухик")
_LATIN: Final = re.compile(r"[A-Za-z3]+")
_CYRILLIC: Final = re.compile(r"[А-Яа-яЁё]+")
_GONE: Final = frozenset({"Cf", "Mn", "Me", "Cc", "Cs", "Co", "Cn"})


class _Folding(dict[int, str]):
    """Code point → what it reads as; ``""`` for what cannot be seen. Filled as characters are met (bounded by Unicode)."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = _fold(chr(code))
        return folded


class PlainText:
    """One text, folded.

    Attributes:
        source: as it came.
        plain: as it reads.
        lower: ``plain`` in lower case.
        invisible: how many characters of ``source`` cannot be seen.
    """

    __slots__ = ("_places", "invisible", "lower", "plain", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._places: list[int] | None = None
        self.plain = source
        self.invisible = 0
        if not source.isascii():
            self._unfold()
        self.lower = self.plain.lower()

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of ``source`` behind ``plain[start:end]`` (not empty)."""
        if self._places is None:
            return start, end
        return self._places[start], self._places[end - 1] + 1

    def _unfold(self) -> None:
        if _ODD.search(self.source) is not None:
            parts = [_FOLDING[ord(character)] for character in self.source]
            self.plain = "".join(parts)
            if len(self.plain) != len(parts):
                self._places = [place for place, part in enumerate(parts) if part]
                self.invisible = len(parts) - len(self._places)
        if _ANY_LATIN.search(self.plain) and _ANY_OTHER.search(self.plain) and _MIXED.search(self.plain):
            self.plain = _MIXED_WORD.sub(_one_alphabet, self.plain)


def _fold(character: str) -> str:
    """One character as one that reads the same, or nothing."""
    if character in "\t\n\r\v\f" or " " <= character <= "~":
        return character
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in _GONE:
        return ""
    if category == "Zs":
        return " "
    if category in {"Zl", "Zp"}:
        return "\n"
    if category == "Pd" and character not in "—–":
        return "-"
    if character == "\u2212":
        return "-"
    whole = unicodedata.normalize("NFKC", character)
    return whole if len(whole) == 1 and len(whole.lower()) == 1 else "I" if character == "İ" else character


def _one_alphabet(word: re.Match[str]) -> str:
    """A word of two alphabets in the one that can write all of it."""
    text = word.group()
    if _LATIN.fullmatch(text) or _CYRILLIC.fullmatch(text):
        return text
    latin = text.translate(_TO_LATIN)
    if _LATIN.fullmatch(latin):
        return latin
    cyrillic = text.translate(_TO_CYRILLIC)
    return cyrillic if _CYRILLIC.fullmatch(cyrillic) else text


_FOLDING: Final = _Folding()
