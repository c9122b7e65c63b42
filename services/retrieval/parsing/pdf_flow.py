"""Turn lines of a PDF page into Markdown: paragraphs re-flowed, words re-joined, headings by size.

Owns: the guesses. A guess only moves line ends and adds ``#`` or ``-``; it never drops a word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from services.retrieval.parsing.markdown import heading
from services.retrieval.parsing.normalise import clean_text
from services.retrieval.parsing.pdf_lines import Line

_HEADING_FACTOR: Final = 1.12
_HEADING_LEVELS: Final = 3
_HEADING_LENGTH: Final = 120
_PITCH_FACTOR: Final = 1.6
_SHORT_LINE: Final = 0.8
_BULLET: Final = re.compile(r"^[•◦▪‣●○■□–—*·-]\s+(?=\S)")
_NUMBERED: Final = re.compile(r"^(\(?\d{1,3}[.)]|\d{1,3}(\.\d{1,3})+\.?|[a-zа-я]\))\s+\S")
_CLAUSE: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,5}\.?(?=\s)")
_ENDS_SENTENCE: Final = re.compile(r"[.!?…:;][»”\")\]]*$")
_HYPHEN_BREAK: Final = re.compile(r"[^\W\d_]{2,}[-‐]$")
_WORD_TAIL: Final = 24
_STARTS_SMALL: Final = re.compile(r"[a-zа-яё]")
# Hyphens that Russian spelling wants: по-русски, кто-то, какой-нибудь, всё-таки.
_KEEPS_HYPHEN_HEAD: Final = re.compile(r"(?i)(?:^|\W)(по|кое|во|из)[-‐]$")
_KEEPS_HYPHEN_TAIL: Final = re.compile(r"(?i)(то|либо|нибудь|таки|за|под)\b")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of type in one document: the body's, and those of headings, largest first."""

    body: float
    headings: tuple[float, ...]

    @classmethod
    def of(cls, pages: Iterable[Sequence[Line]]) -> Sizes:
        """The size of most characters is the body's; clearly larger short lines are headings."""
        weights: Counter[float] = Counter()
        candidates: Counter[float] = Counter()
        for line in (line for lines in pages for line in lines):
            weights[line.size] += len(line.text)
            if len(line.text) <= _HEADING_LENGTH:
                candidates[line.size] += 1
        if not weights:
            return cls(0.0, ())
        body = max(weights, key=lambda size: weights[size])
        larger = sorted((size for size in candidates if size >= body * _HEADING_FACTOR), reverse=True)
        return cls(body, tuple(larger))

    def level(self, line: Line) -> int | None:
        """Heading level of a line; None for body text."""
        if len(line.text) > _HEADING_LENGTH or not any(char.isalpha() for char in line.text):
            return None
        if " … " in line.text:
            return None
        if line.size in self.headings:
            return min(1 + self.headings.index(line.size), _HEADING_LEVELS) + _depth(line.text)
        if line.bold and line.size >= self.body and not line.text.endswith((".", ",", ";")) and line.text[0].isalnum() and not line.text[0].islower():
            return min(1 + len(self.headings), _HEADING_LEVELS) + _depth(line.text)
        return None


def _depth(text: str) -> int:
    """How deep a numbered heading is: 0 for ``2. Term`` and unnumbered ones, 1 for ``2.1 Notice``."""
    found = _CLAUSE.match(text)
    return min(found.group().rstrip(".").count("."), _HEADING_LEVELS) if found else 0


def flow(lines: Sequence[Line], sizes: Sizes) -> list[str]:
    """Markdown blocks of one page, in order."""
    width = max((line.right for line in lines), default=0.0)
    pitch = _usual_pitch(lines)
    blocks: list[str] = []
    group: list[Line] = []
    level: int | None = None
    for line in lines:
        now = sizes.level(line)
        if group and (now != level or _starts_block(group[-1], line, width, pitch, now is not None)):
            blocks.append(_block(group, level))
            group = []
        group.append(line)
        level = now
    if group:
        blocks.append(_block(group, level))
    return _with_lists([block for block in blocks if block])


def _with_lists(blocks: Sequence[str]) -> list[str]:
    """Neighbouring bullets as one list."""
    out: list[str] = []
    for block in blocks:
        if out and block.startswith("- ") and out[-1].startswith("- "):
            out[-1] += f"\n{block}"
        else:
            out.append(block)
    return out


def _usual_pitch(lines: Sequence[Line]) -> float:
    """Commonest distance between neighbouring baselines, in points."""
    steps = Counter(round(a.bottom - b.bottom) for a, b in pairwise(lines) if a.bottom > b.bottom)
    return float(steps.most_common(1)[0][0]) if steps else 0.0


def _starts_block(before: Line, line: Line, width: float, pitch: float, in_heading: bool) -> bool:
    """Whether ``line`` opens a new paragraph, list item or heading after ``before``."""
    step = before.bottom - line.bottom
    far = pitch > 0 and (step > max(pitch, line.size) * _PITCH_FACTOR or step < -line.size)
    if in_heading:
        return far or step <= 0
    if before.broken:
        return False
    if _BULLET.match(line.text) or (_NUMBERED.match(line.text) and (far or _ENDS_SENTENCE.search(before.text[-8:]) is not None)):
        return True
    if _STARTS_SMALL.match(line.text) and not _ENDS_SENTENCE.search(before.text[-8:]):
        return step < -line.size and before.right < width * _SHORT_LINE
    if far:
        return True
    if pitch > 0 and step > pitch * 1.15 and _ENDS_SENTENCE.search(before.text[-8:]):
        return True
    return before.right < width * _SHORT_LINE


def _block(group: Sequence[Line], level: int | None) -> str:
    text = join_lines([(line.text, line.broken) for line in group])
    if level is not None:
        return heading(level, text)
    return _BULLET.sub("- ", text)


def join_lines(lines: Sequence[tuple[str, bool]]) -> str:
    """One paragraph from its lines; words broken at a line end are whole again.

    Args:
        lines: text, and whether the format itself marks the last word as broken.
    """
    parts: list[str] = []
    open_word = False
    for text, broken in lines:
        now = clean_text(text)
        if parts and not open_word:
            parts[-1], gap = _seam(parts[-1], now)
            parts.append(gap)
        parts.append(now)
        open_word = broken
    return "".join(parts)


def _seam(before: str, after: str) -> tuple[str, str]:
    """The line ``before`` as it should end, and what stands between it and ``after``."""
    if not before.endswith(("-", "‐")):
        return before, " "
    tail = before[-_WORD_TAIL:]
    if not (_HYPHEN_BREAK.search(tail) and _STARTS_SMALL.match(after)):
        return before, " "
    if _KEEPS_HYPHEN_HEAD.search(tail) or _KEEPS_HYPHEN_TAIL.match(after):
        return before, ""
    return before[:-1], ""
