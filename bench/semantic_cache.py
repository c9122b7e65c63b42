"""Semantic cache: how often it would hit, and how often the answer would be another question's. `python -m bench.semantic_cache --data DIR [--json FILE]`.

Two sets of questions. `clinc150.json` (test split): every question meets a cache that holds all the others; a hit is right when both have the same intent
(the kindest reading: "transfer 5 to anna" and "transfer 7 to boris" share one, and the guard of numbers and names is what tells them apart).
`xquad.en.questions.jsonl`: questions about documents, each with its own answer, so that every hit on a question with another answer is wrong. The guard
on cited documents is not in play here: in the box it takes away more wrong hits.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from appliance.contracts.embed.v1.api import Encoder, Vectors
from appliance.home import Home
from appliance.hub.models_toml import load_home_models
from bench.report import Row, arguments, report
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings
from services.router.question_facts import question_facts

THRESHOLDS = (0.85, 0.9, 0.93, 0.95, 0.97, 0.99)
CHUNK = 256


def questions(data: Path) -> dict[str, list[tuple[str, str]]]:
    """Set → (question, what a right hit has in common with it)."""
    clinc = [(text, intent) for text, intent in json.loads((data / "clinc150.json").read_text())["test"]]
    lines = (json.loads(line) for line in (data / "xquad.en.questions.jsonl").read_text().splitlines())
    xquad = [(one["question"], f"{one['passage']}:{one['answers'][0][0]}") for one in lines]
    return {"clinc150": clinc, "xquad": xquad}


async def embedded(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    return np.concatenate([await encoder.embed(texts[begin : begin + CHUNK]) for begin in range(0, len(texts), CHUNK)])


def nearest(vectors: Vectors, allowed: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and position of the most similar other question among those that ``allowed`` names for each."""
    best, where = np.full(len(vectors), -1.0), np.zeros(len(vectors), int)
    for position, others in enumerate(allowed):
        others = others[others != position]  # noqa: PLW2901
        if len(others):
            cosines = vectors[others] @ vectors[position]
            at = int(np.argmax(cosines))
            best[position], where[position] = cosines[at], others[at]
    return best, where


def _is_right(question: tuple[str, str], hit: tuple[str, str]) -> bool:
    """The same words are the same question, whatever the set says."""
    return question[1] == hit[1] or question[0].split() == hit[0].split()


def measured(name: str, asked: Sequence[tuple[str, str]], vectors: Vectors) -> list[Row]:
    rows = []
    groups: dict[frozenset[str], list[int]] = {}
    for position, (text, _) in enumerate(asked):
        groups.setdefault(question_facts(text), []).append(position)
    everyone = np.arange(len(asked))
    by_facts = {facts: np.array(members) for facts, members in groups.items()}
    ways = {"without guard": [everyone] * len(asked), "with guard": [by_facts[question_facts(text)] for text, _ in asked]}
    for way, allowed in ways.items():
        best, where = nearest(vectors, allowed)
        same = np.array([_is_right(asked[position], asked[other]) for position, other in enumerate(where)])
        for threshold in THRESHOLDS:
            hits = best >= threshold
            wrong = int((hits & ~same).sum())
            rows.append(Row(f"semantic-cache {name}", f"hit rate at {threshold}, {way}", 100 * hits.mean(), "%"))
            rows.append(Row(f"semantic-cache {name}", f"wrong among hits at {threshold}, {way}", 100 * wrong / max(1, int(hits.sum())), "%"))
            rows.append(Row(f"semantic-cache {name}", f"wrong among all questions at {threshold}, {way}", 100 * wrong / len(asked), "%"))
    return rows


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--home", type=Path, default=Home.default().path)
    parser.add_argument("--model", default="minilm")
    options = parser.parse_args()
    if options.data is None:
        print("--data FOLDER is needed", file=sys.stderr)
        return 2
    spec = load_home_models(options.home).get("embed", options.model)
    encoder = OnnxEncoder.load(spec, Home(options.home).path / "models", EmbedSettings.read(query_cache_entries=0))
    rows: list[Row] = []
    for name, asked in questions(options.data).items():
        vectors = asyncio.run(_run(encoder, [text for text, _ in asked]))
        rows += measured(name, asked, vectors)
    report(rows, options.json)
    return 0


async def _run(encoder: OnnxEncoder, texts: Sequence[str]) -> Vectors:
    return await embedded(encoder, texts)


if __name__ == "__main__":
    sys.exit(main())
