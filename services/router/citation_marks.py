r"""What a citation mark looks like, in all the ways that models write one. Pure; the filter that uses it is ``citations``.

A mark is a bracket pair around source numbers: ``[1]``, ``[1, 3]``, ``[2-4]``, ``[^1]``, ``[source 2]``, ``【3†source】``, ``［４］``, ``\[5\]``. Look-alike
brackets, full-width and other Unicode digits, zero-width characters and emphasis inside the brackets count as what they look like.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

OPENERS: Final = "[【［〔⟦"
CLOSERS: Final = "]】］〕⟧"
_LABELS: Final = ("sources", "source", "src", "passages", "passage", "references", "reference", "ref", "citation", "cite", "document", "doc", "источник", "источники", "документ", "no")  # fmt: skip
_NOT_BRACKET: Final = rf"[^{re.escape(OPENERS + CLOSERS)}\n]"
MARK: Final = re.compile(rf"[ \t]?\\?[{re.escape(OPENERS)}]({_NOT_BRACKET}{{1,2000}})[{re.escape(CLOSERS)}]")
OPEN: Final = re.compile(rf"[ \t]?\\?[{re.escape(OPENERS)}]({_NOT_BRACKET}*)$|[ \t]?\\$|[ \t]$")
_LABEL: Final = re.compile(rf"^(?:{'|'.join(_LABELS)})s?\b[\s.:№#]*")
_TAIL: Final = re.compile(r"†.*$")  # OpenAI's own form: 【3†source】
_JOIN: Final = re.compile(r"\s*(?:,|;|/|&|\+|\band\b|\bи\b|\s)\s*")
_RANGE: Final = re.compile(r"\s*[-–—−:]+\s*|\s*\.\.+\s*")
_ONLY_MARK: Final = re.compile(r"[\d\s,;/&+\-–—−:.]*")
_HYPHENS: Final = dict.fromkeys(map(ord, "‐‑‒―"), "-")
_MOST_OF_A_RANGE: Final = 40
_MOST_DIGITS: Final = 100


def numbers_in(inside: str) -> list[int] | None:
    """Source numbers between the brackets, in order; None when this is no citation mark (``[note]``, ``[sic]``)."""
    text = _TAIL.sub("", _folded(inside))
    text = _LABEL.sub("", text).strip(" .")
    if not text or not text[0].isdigit():
        return None
    numbers: list[int] = []
    for part in filter(None, _JOIN.split(text)):
        ends = [end for end in _RANGE.split(part) if end]
        if len(ends) not in {1, 2} or not all(end.isdigit() and len(end) <= _MOST_DIGITS for end in ends) or int(ends[0]) > int(ends[-1]):
            return None  # a date, an index expression, a telephone number
        numbers.extend(range(int(ends[0]), min(int(ends[-1]), int(ends[0]) + _MOST_OF_A_RANGE) + 1))
    return numbers


def may_become_mark(inside: str) -> bool:
    """Whether an open bracket followed by ``inside`` could still turn into a mark when more text comes."""
    text = _folded(inside).lstrip()
    if any(label.startswith(text) for label in _LABELS):
        return True
    rest = _LABEL.sub("", text)
    rest = re.sub(r"\s*(?:a|an|and|и)\s*", " ", _TAIL.sub("", rest))
    return _ONLY_MARK.fullmatch(rest) is not None


def is_bare(inside: str) -> bool:
    """Whether ``inside`` holds nothing but digits, separators and blanks."""
    return _ONLY_MARK.fullmatch(_folded(inside)) is not None


def _folded(text: str) -> str:
    """Compatibility digits and letters as plain ones, invisible characters and emphasis marks gone, lower case."""
    plain = unicodedata.normalize("NFKC", text).translate(_HYPHENS)
    visible = "".join(character for character in plain if unicodedata.category(character) not in {"Cf", "Mn"})
    return "".join(_digit(character) for character in visible if character not in "*_^#`\\~№").strip().lower()


def _digit(character: str) -> str:
    """Any decimal digit of Unicode as an ASCII one."""
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)
