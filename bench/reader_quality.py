"""The built-in reader: is the answer inside a quote, and does it refuse when the passage is gone.

    python -m bench.reader_quality --data DIR [--json FILE] [--curve FILE.json] [--svg FILE.svg]

Three conditions for every question over one index of both languages: `full`; `twin`: the passage of the question's
language removed, its translation kept; `none`: both removed. Hits are removed before fusion and document frequencies are
lowered accordingly, so nothing of the removed passage reaches the reader.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from appliance.language.query import DocumentFrequencies, analyse_query
from bench import evaluation_set as data
from bench.report import Report, arguments
from bench.retrieval_quality import ENCODER_KNOWS, LANGUAGES, LEG_DEPTH, Collection, build, rank_legs, rerank
from bench.search_legs import Hits, Vectors
from bench.trade_off_picture import svg
from services.llm.reader.answerability import THRESHOLD
from services.llm.reader.compose import Reading, Reply, answer, prepare
from services.llm.reader.evidence import ReaderPassage
from services.llm.reader.sentences import split_units

TOP_K: Final = 5
TARGETS: Final = {"answered.en": 0.85, "answered.ru": 0.80, "refused": 0.80}


@dataclass(frozen=True)
class Without:
    """Statistics of an index from which some chunks were removed."""

    whole: DocumentFrequencies
    removed: Sequence[frozenset[str]]

    @property
    def documents(self) -> int:
        """Chunks left."""
        return self.whole.documents - len(self.removed)

    def document_frequency(self, term: str) -> int:
        """Chunks left that hold `term`."""
        return self.whole.document_frequency(term) - sum(term in terms for terms in self.removed)


@dataclass(frozen=True)
class Outcome:
    """One question in one condition: the reply without a threshold, and whether its quotes hold the answer."""

    language: str
    condition: str
    article: str
    reply: Reply
    reading: Reading
    cosines: Sequence[float] | None
    hit: bool
    seconds: float


def read_one(
    question: data.Question, vector: Vectors, collection: Collection, removed: Sequence[int], encode: Callable[[str], Vectors]
) -> tuple[Reading, Sequence[float] | None, Reply, float]:
    """Search, rerank and read with some chunks removed; seconds are the reader's own, without embedding."""
    query = analyse_query(question.question)
    bm25: Hits = [hit for hit in collection.text_leg.search(query.terms, LEG_DEPTH) if hit[0] not in removed]
    dense: Hits = [hit for hit in collection.dense_leg.search(vector, LEG_DEPTH) if hit[0] not in removed]
    statistics = Without(collection.text_leg, [frozenset(collection.terms[chunk].terms) for chunk in removed])
    best = rerank(query, rank_legs(bm25, dense, query), bm25, dense, collection, siblings=True, statistics=statistics)
    passages = [ReaderPassage(n, collection.texts[chunk], score) for n, (chunk, score) in enumerate(best[:TOP_K], 1)]
    started = time.perf_counter()
    reading = prepare(question.question, passages, statistics)
    seconds = time.perf_counter() - started
    knows = query.language in ENCODER_KNOWS and reading.shortlist
    cosines = [float(encode(text) @ vector) for text in reading.shortlist] if knows else None
    started = time.perf_counter()
    reply = answer(reading, cosines, threshold=0.0)
    return reading, cosines, reply, seconds + time.perf_counter() - started


def outcomes(source: Path) -> list[Outcome]:
    """Every question in every condition."""
    passages = {language: data.passages(source, language) for language in LANGUAGES}
    collection, spans = build("passage", passages)
    texts = list(dict.fromkeys(t[u.start : u.end] for t in collection.texts for u in split_units(t)))
    vectors = collection.dense_leg.encode(texts)
    table = dict(zip(texts, vectors, strict=True))
    chunk_of = {key: chunks[0][2] for key, chunks in spans.items()}
    found = []
    for language in LANGUAGES:
        questions = data.questions(source, language)
        asked = collection.dense_leg.encode([q.question for q in questions])
        other = next(name for name in LANGUAGES if name != language)
        for question, vector in zip(questions, asked, strict=True):
            gold, twin = chunk_of[language, question.passage], chunk_of[other, question.passage]
            for condition, removed in (("full", ()), ("twin", (gold,)), ("none", (gold, twin))):
                reading, cosines, reply, seconds = read_one(question, vector, collection, removed, table.__getitem__)
                hit = any(text in quote.text for text, _ in question.answers for quote in reply.quotes)
                article = question.passage.rpartition("#")[0]
                found.append(Outcome(language, condition, article, reply, reading, cosines, hit, seconds))
    return found


def at_threshold(found: Sequence[Outcome], language: str, threshold: float) -> dict[str, float]:
    """Shares at one threshold: answered (right span quoted, not refused) and refused by condition."""
    mine = [o for o in found if o.language == language]
    full = [o for o in mine if o.condition == "full"]
    row = {"threshold": threshold}
    row["answered"] = float(np.mean([o.hit and o.reply.probability >= threshold for o in full]))
    for condition in ("full", "twin", "none"):
        refused = [o.reply.probability < threshold for o in mine if o.condition == condition]
        row[f"refused.{condition}"] = float(np.mean(refused))
    return row


def curve(found: Sequence[Outcome]) -> dict[str, list[dict[str, float]]]:
    """Return the whole trade-off: 101 thresholds a language."""
    steps = [round(step / 100, 2) for step in range(101)]
    return {language: [at_threshold(found, language, step) for step in steps] for language in LANGUAGES}


def quote_sizes(found: Sequence[Outcome], language: str) -> dict[str, float]:
    """Size of the replies that are given at the shipped threshold."""
    given = [o for o in found if o.language == language and o.condition == "full" and o.reply.probability >= THRESHOLD]
    lengths = [sum(len(q.text) for q in o.reply.quotes) for o in given]
    passage = [len(o.reading.passages[0].text) for o in given]
    return {
        "quotes per reply": float(np.mean([len(o.reply.quotes) for o in given])),
        "quoted characters": float(np.mean(lengths)),
        "quoted / passage": float(np.mean(lengths) / np.mean(passage)),
    }


def main() -> int:
    """Print the table; exit code 2 without data."""
    parser = arguments(__doc__)
    parser.add_argument("--curve", type=Path, help="write the trade-off curve as JSON")
    parser.add_argument("--svg", type=Path, help="draw the trade-off curve")
    options = parser.parse_args()
    source = data.folder(options.data)
    if source is None:
        return 2
    report = Report("reader-quality", options.json)
    found = outcomes(source)
    for language in LANGUAGES:
        row: dict[str, Any] = at_threshold(found, language, THRESHOLD) | quote_sizes(found, language)
        row["inside quotes, never refusing"] = at_threshold(found, language, 0.0)["answered"]
        milliseconds = [o.seconds * 1e3 for o in found if o.language == language]
        row["p50 ms"], row["p95 ms"] = (float(np.percentile(milliseconds, share)) for share in (50, 95))
        for name, value in row.items():
            target = TARGETS.get(f"{name}.{language}", TARGETS["refused"] if name in ("refused.twin", "refused.none") else None)
            unit = "ms" if name.endswith("ms") else "characters" if name == "quoted characters" else "share"
            report.add(f"{language} {name}", value, unit, target)
    trade_off = curve(found)
    if options.curve:
        options.curve.write_text(json.dumps(trade_off, indent=1), encoding="utf-8")
    if options.svg:
        options.svg.write_text(svg(trade_off, THRESHOLD), encoding="utf-8")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
