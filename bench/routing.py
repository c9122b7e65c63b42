"""Routing: accuracy with and without rejection, confidence, time of a decision, on intent sets of clinc150's shape. `python -m bench.routing --data DIR`.

A set is a JSON file with lists of [text, intent] under train, val, test, oos_train, oos_val, oos_test. Training sees train and oos_train, calibration val and
oos_val, and every figure is of test and oos_test, decided one by one by the very router of the box with its encoder (no cache of vectors).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from appliance.contracts.embed.v1.api import Encoder, Vectors
from appliance.contracts.llm.v1.api import Message
from appliance.home import Home
from appliance.hub.models_toml import load_home_models
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import configure_logging
from appliance.kit.offline import seal_environment
from bench.report import Report, arguments
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings
from services.router.intents.bootstrap import build_intents
from services.router.intents.examples import Example
from services.router.intents.routes_toml import OUT_OF_SCOPE
from services.router.intents.workbench import summary, train

FOREIGN = "oos"
Rows = Sequence[Sequence[str]]


class TimedEncoder:
    """The encoder, with the seconds of each call for one text."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.seconds: list[float] = []

    @property
    def dimensions(self) -> int:
        return self._encoder.dimensions

    @property
    def languages(self) -> frozenset[str]:
        return self._encoder.languages

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        started = time.perf_counter()
        found = await self._encoder.embed(texts, background=background)
        if len(texts) == 1:
            self.seconds.append(time.perf_counter() - started)
        return found

    def count_tokens(self, text: str) -> int:
        return self._encoder.count_tokens(text)


def main() -> int:
    """0 when it ran to its end, 2 without data."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="minilm", help="alias of the encoder in models.toml")
    parser.add_argument("--home", type=Path, default=Home.default().path, help="whose models to use")
    parser.add_argument("--set", default="clinc150.json", help="file in the folder with data")
    parser.add_argument("--per-intent", type=int, default=0, help="at most so many training examples of each intent; 0 = all")
    parser.add_argument("--folds", action="store_true", help="calibrate with folds of the training set instead of val")
    options = parser.parse_args()
    file = (options.data or Path("../shared/data")) / options.set
    if not file.is_file():
        print(f"no evaluation data {file}\nhint: pass --data DIR", file=sys.stderr)
        return 2
    seal_environment(options.home)
    configure_logging(level="ERROR", stderr=True)
    report = Report("routing", options.json)
    folder = Path(tempfile.mkdtemp(prefix="routing-"))
    try:
        asyncio.run(measure(json.loads(file.read_text()), folder, options, report))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})\nhint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    finally:
        shutil.rmtree(folder)
    return report.close()


async def measure(data: dict[str, Rows], home: Path, options: Any, report: Report) -> None:
    """Train in ``home``, then decide the test rows."""
    full = not options.per_intent and not options.folds
    write_home(home, data, options.per_intent, with_validation=not options.folds and not options.per_intent)
    settings = EmbedSettings.read(query_cache_entries=0)
    loaded = OnnxEncoder.load(load_home_models(options.home).get("embed", options.model), options.home / "models", settings)
    encoder = TimedEncoder(loaded)
    result = await train(home, encoder, "bench", lambda step, done: print(f"\r{step} {done:.0%}   ", end="", file=sys.stderr))
    print(file=sys.stderr)
    report.add("training, without embedding", result["seconds"], "s")
    report.add("size of the classifier", result["size_bytes"] / 1e6, "MB")
    router = build_intents(home, encoder, identity=lambda: "bench")
    assert router.problem is None, router.problem
    rows = [Example(text, OUT_OF_SCOPE if intent == FOREIGN else intent) for text, intent in [*data["test"], *data.get("oos_test", [])]]
    encoder.seconds.clear()
    decisions, spent = [], []
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    for row in order:
        started = time.perf_counter()
        decisions.append(await router.decide((Message("user", rows[row].text),), "en"))
        spent.append(time.perf_counter() - started)
    figures = summary([rows[row] for row in order], decisions, [])
    report.add("in-scope accuracy, without rejection", figures["accuracy"], "share", 0.955 if full else None)
    report.add("in-scope accuracy, with rejection", figures["accuracy_with_rejection"], "share", 0.93 if full else None)
    if figures["out_of_scope_recall"] is not None:
        report.add("out-of-scope recall", figures["out_of_scope_recall"], "share", 0.85 if full else None)
    report.add("expected calibration error, in scope", figures["calibration_error"], "share")
    for level in ("high", "medium", "low"):
        report.add(f"level {level}", figures[f"level_{level}"], "share")
    report.add("decided by words alone", 1 - len(encoder.seconds) / len(rows), "share")
    await times(router, [rows[row].text for row in order], spent, encoder.seconds, report)
    loaded.close()


async def times(router: Any, texts: Sequence[str], spent: Sequence[float], embedded: Sequence[float], report: Report) -> None:
    """Median over five slices, so that a neighbour's burst does not decide; and hits of the cache."""
    slices = [1e3 * float(np.quantile(part, 0.5)) for part in np.array_split(np.array(spent), 5)]
    report.add("decision p50, embedding included (median of 5 slices)", float(np.median(slices)), "ms", 3.0, higher=False)
    report.add("decision p50, best slice", min(slices), "ms")
    report.add("decision p99", 1e3 * float(np.quantile(spent, 0.99)), "ms")
    if embedded:
        report.add("embedding where it is needed, p50", 1e3 * float(np.quantile(embedded, 0.5)), "ms")
        slow = sorted(spent)[-len(embedded) :]
        report.add("decision with embedding, p50", 1e3 * float(np.quantile(slow, 0.5)), "ms")
    hits = []
    for text in texts[-2000:]:  # the cache holds the last 4096
        messages = (Message("user", text),)
        started = time.perf_counter()
        await router.decide(messages, "en")
        hits.append(time.perf_counter() - started)
    report.add("cache hit, p50", 1e6 * float(np.quantile(hits, 0.5)), "µs", 50, higher=False)


def write_home(home: Path, data: dict[str, Rows], per_intent: int, *, with_validation: bool) -> None:
    """``router.toml`` and examples of the set."""
    intents = sorted({intent for _, intent in data["train"]} - {FOREIGN})
    lines = ["schema_version = 1"]
    if with_validation and data.get("val"):
        lines.append('validation = "router/validation.jsonl"')
    lines += [f"[routes.{json.dumps(intent.lower())}]" for intent in intents]
    (home / "router.toml").write_text("\n".join(lines) + "\n")
    (home / "router").mkdir()
    write_rows(home / "router" / "examples.jsonl", first(data["train"], per_intent) + first(data.get("oos_train", []), per_intent))
    if with_validation and data.get("val"):
        write_rows(home / "router" / "validation.jsonl", [*data["val"], *data.get("oos_val", [])])


def first(rows: Rows, per_intent: int) -> list[Sequence[str]]:
    """The first ``per_intent`` of each intent (100 of the foreign ones); 0 = all."""
    if not per_intent:
        return list(rows)
    taken: dict[str, int] = {}
    kept = []
    for row in rows:
        taken[row[1]] = taken.get(row[1], 0) + 1
        if taken[row[1]] <= (100 if row[1] == FOREIGN else per_intent):
            kept.append(row)
    return kept


def write_rows(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """As labelled examples; the first label of a text that a set labels twice."""
    seen: dict[str, str] = {}
    for text, intent in rows:
        seen.setdefault(" ".join(text.lower().split()), json.dumps({"text": text, "route": OUT_OF_SCOPE if intent == FOREIGN else intent.lower()}))
    file.write_text("\n".join(seen.values()) + "\n")


if __name__ == "__main__":
    sys.exit(main())
