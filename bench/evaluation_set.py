"""Reading question/passage collections and writing benchmark results; shared by the quality benches."""

import itertools
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Span = tuple[int, int, int]
"""(start, end, chunk id): characters of a passage that became one chunk."""

_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])\s+(?=[\"«A-ZА-ЯЁ0-9])")


@dataclass(frozen=True)
class Passage:
    """A passage; `id` is `<article>#<number>` and the same in every language."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question; `answers` are (text, start) in the passage of the question's language."""

    id: str
    question: str
    passage: str
    answers: tuple[tuple[str, int], ...]


def folder(flag: Path | None) -> Path | None:
    """Return the collection's folder, or None with a message on stderr."""
    path = Path(flag or os.environ.get("APPLIANCE_EVAL_DATA") or "../shared/data")
    if (path / "xquad.en.passages.jsonl").is_file() and (path / "xquad.ru.passages.jsonl").is_file():
        return path
    print(f"no evaluation data in {path}\nhint: pass --data DIR or set APPLIANCE_EVAL_DATA", file=sys.stderr)
    return None


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def passages(source: Path, language: str) -> list[Passage]:
    """All passages of a language, in file order."""
    return [Passage(p["id"], p["title"], p["text"]) for p in _lines(source / f"xquad.{language}.passages.jsonl")]


def questions(source: Path, language: str) -> list[Question]:
    """All questions of a language, in file order."""
    rows = _lines(source / f"xquad.{language}.questions.jsonl")
    return [Question(q["id"], q["question"], q["passage"], tuple((a, s) for a, s in q["answers"])) for q in rows]


def plain_sentences(text: str) -> list[tuple[int, int]]:
    """Return the splitter of the BM25 floor (`bench_bm25_xquad.py`), kept so that the numbers compare."""
    edges = [0, *(m.end() for m in _SENTENCE_END.finditer(text)), len(text)]
    return list(itertools.pairwise(edges))


def span_of(question: Question, spans: list[Span]) -> int | None:
    """Return the chunk that holds the start of the first answer."""
    start = question.answers[0][1]
    return next((chunk for first, end, chunk in spans if first <= start < end), None)
