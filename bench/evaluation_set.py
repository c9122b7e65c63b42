"""Reading question/passage collections and writing benchmark results; shared by the quality benches."""

import argparse
import itertools
import json
import os
import re
import sys
from dataclasses import dataclass, field
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Return the flags that every quality bench has."""
    parser.add_argument("--data", help="folder with the collection (default: $APPLIANCE_EVAL_DATA or ../shared/data)")
    parser.add_argument("--json", type=Path, help="append the results as JSON lines to this file")


def folder(flag: str | None) -> Path | None:
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


@dataclass
class Report:
    """Collects metrics, compares them with targets and appends them as JSON lines."""

    bench: str
    path: Path | None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, metric: str, value: float, unit: str, target: float | None = None, *, higher: bool = True) -> None:
        """Record one value; `higher` tells which side of the target is good."""
        met = None if target is None else (value >= target if higher else value <= target)
        row = {"bench": self.bench, "metric": metric, "value": round(value, 4), "unit": unit, "target": target, "met": met}
        self.rows.append(row)

    def close(self) -> int:
        """Print what was missed, write the file, answer the exit code: 1 when a target was missed."""
        missed = [row for row in self.rows if row["met"] is False]
        for row in missed:
            print(f"missed: {row['metric']} = {row['value']} (target {row['target']})")
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        return 1 if missed else 0
