"""Make text safe and searchable: no control characters, one kind of newline, composed letters.

Runs before any offset is counted, so offsets are never disturbed later.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Controls but tab and newline, lone surrogates, zero-width and direction marks, noncharacters, BOM.
_UNWANTED: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffe\uffff\ud800-\udfff]"
)
_NEWLINES: Final = re.compile("\r\n?|\x85|\u2028|\u2029")
_SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_RUNS: Final = re.compile(r"[ \t]+")
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_LINE_END_SPACES: Final = re.compile(r"(?<=[^ \t\n])[ \t]+(?=\n)")
_BLANK_LINE_SPACES: Final = re.compile(r"^[ \t]+$", re.MULTILINE)
_LETTERS_SEEN: Final = 20_000


def clean_text(text: str) -> str:
    r"""Text without controls, with ``\\n`` newlines, plain spaces and composed letters (NFC)."""
    text = _NEWLINES.sub("\n", text)
    text = _UNWANTED.sub("", text)
    text = _SPACES.sub(" ", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def one_line(text: str) -> str:
    """``clean_text`` with every run of white space as one space; for cells, titles and headings."""
    if not text.isprintable() or not unicodedata.is_normalized("NFC", text):  # else there is nothing to clean; cells are many
        text = clean_text(text)
    return " ".join(text.split())


def tidy_markdown(text: str) -> str:
    """No trailing spaces, at most one blank line in a row, no blank edges."""
    text = _BLANK_LINE_SPACES.sub("", text)
    text = _LINE_END_SPACES.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip("\n \t")


def squeeze_spaces(text: str) -> str:
    """Runs of blanks inside lines as one space."""
    return _RUNS.sub(" ", text)


def language_of(text: str) -> str | None:
    """``ru`` or ``en`` by the script of most letters at the start of ``text``; None without letters."""
    sample = text[:_LETTERS_SEEN]
    cyrillic = sum("\u0400" <= char <= "\u04ff" for char in sample)
    latin = sum(char.isascii() and char.isalpha() for char in sample)
    if cyrillic + latin == 0:
        return None
    return "ru" if cyrillic >= latin else "en"
