"""What was found for a prompt, in pieces that can be quoted: sections in reading order and their sentences. Pure.

A prompt such as "supply contract" asks nothing that a sentence could answer; what stands in the documents about it is the answer. Retrieval gives the best
passages whatever they are worth, so those that share too few of the prompt's words are left out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from appliance.contracts.retrieval.v1.api import Passage
from appliance.language.query import analyse_query
from appliance.language.synonyms import synonyms
from appliance.language.terms import analyse

_SHARED: Final = 0.6
"""Of the prompt's terms, in name, headings and text of a passage."""
_NEAR: Final = 0.6
"""Cosine that does instead, for prompts in other words or another language."""
_HEADING: Final = re.compile(r"^#{1,6}\s+.*$\n*", re.MULTILINE)
_RULE: Final = re.compile(r"^\|(?:\s*:?-+:?\s*\|)+\s*$\n?", re.MULTILINE)
_BREAK: Final = re.compile(r"(?<=[.!?;…])\s+(?=[A-ZА-ЯЁ«\"“(\d])|\n+")
_GOES_ON: Final = re.compile(r"^[\s\d.]+\.$|(?:^|[\s(«])(?:[^\W\d]|No|Nos|Art|Sec|Ltd|Inc|Mr|Mrs|Dr|руб|коп|тыс|стр|ул|пр|им|см)\.$", re.IGNORECASE)
_MARK: Final = re.compile(r"\[\s*\^?\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*\s*\]")
"""A note mark of the source: it would read as one of ours."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters ``start:end`` of a passage, and their words without the marks of Markdown."""

    passage: Passage
    start: int
    end: int
    words: str

    @property
    def place(self) -> str:
        """The heading above it; without one, the document's name."""
        return self.passage.heading_path[-1] if self.passage.heading_path else PurePath(self.passage.document_name).stem.replace("_", " ")


def relevant(prompt: str, passages: Sequence[Passage]) -> list[Passage]:
    """Passages about the prompt, in reading order; documents by their best passage."""
    terms = set(analyse_query(prompt).terms)
    kept = [passage for passage in passages if _shared(terms, passage) >= _SHARED or passage.legs.get("dense", 0.0) >= _NEAR]
    order = list(dict.fromkeys(passage.document_id for passage in kept))
    return sorted(kept, key=lambda passage: (order.index(passage.document_id), passage.start))


def sections(passages: Sequence[Passage]) -> list[list[Piece]]:
    """The passages as pieces; those under one heading together."""
    found: list[list[Piece]] = []
    for passage in passages:
        if not (words := plain(passage.text)):
            continue
        piece = Piece(passage, 0, len(passage.text), words)
        last = found[-1][-1].passage if found else None
        if last is not None and (last.document_id, last.heading_path) == (passage.document_id, passage.heading_path):
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


def sentences(passage: Passage) -> Iterator[Piece]:
    """Sentences and rows of tables, without headings."""
    skipped = [match.span() for pattern in (_HEADING, _RULE) for match in pattern.finditer(passage.text)]
    start = 0
    for end in [*_ends(passage.text), len(passage.text)]:
        words = plain(passage.text[start:end])
        if words and not any(first <= start < last for first, last in skipped):
            yield Piece(passage, start, end, words)
        start = end


def plain(text: str) -> str:
    """``text`` without Markdown's headings and the frames of its tables, and without the source's own note marks."""
    text = _MARK.sub("", _RULE.sub("", _HEADING.sub("", text)))
    lines = [line.strip() for line in text.strip().splitlines()]
    return "\n".join(line.strip("| ").replace(" | ", " — ") if line.startswith("|") else line.removeprefix("- ") for line in lines)


def cut(text: str, most: int | None) -> str:
    """``text``, or its beginning up to a word with "…" where it is longer than ``most`` characters."""
    if most is None or len(text) <= most:
        return text
    return f"{text[: max(most - 1, 0)].rsplit(' ', 1)[0].rstrip()}…"


def _shared(terms: set[str], passage: Passage) -> float:
    if not terms:
        return 0.0
    said = set(analyse(" ".join((passage.document_name.replace("_", " "), *passage.heading_path, passage.text))))
    return sum(term in said or any(other in said for other in synonyms(term)) for term in terms) / len(terms)


def _ends(text: str) -> Iterator[int]:
    start = 0
    for match in _BREAK.finditer(text):
        if "\n" in match[0] or not _GOES_ON.search(text[start : match.start()]):
            yield match.end()
            start = match.end()
