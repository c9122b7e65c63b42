"""Search latency over 100,000 chunks, through HTTP on the running box, query embedding included; and its memory.

    python -m bench.search_latency [--json FILE] [--home FOLDER] [--chunks N]

``--home`` keeps the synthetic library (bench/large_library.py) for the next run. Questions are distinct, so no cache answers them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from appliance.home import Home
from appliance.testing.box_process import BoxProcess, box_process
from bench import large_library
from bench.report import Row, arguments, report
from services.retrieval.domain import AccessFilter
from services.retrieval.qdrant_vector_index import QdrantVectorIndex

WARM_UP, MEASURED = 40, 400


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    options = parser.parse_args()
    with library(options) as home:
        recall = graph_recall(home)
        with box_process(home) as box:
            rows = [*measure(box, options.chunks), recall]
    report(rows, options.json)
    return 0


@contextmanager
def library(options: argparse.Namespace) -> Iterator[Path]:
    """The home with the large library; built when it is not there."""
    kept = options.home or os.environ.get("APPLIANCE_BENCH_LIBRARY")  # `make bench` shares one library between benchmarks
    if kept is not None:
        home = Path(kept)
        if not (home / "built").exists():
            large_library.build(Home(home), options.chunks)
            (home / "built").touch()
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="bench-library-") as folder:
        large_library.build(Home(Path(folder)), options.chunks)
        yield Path(folder)


def measure(box: BoxProcess, chunks: int) -> list[Row]:
    """Latencies in both languages, stages as the box reports them, memory."""
    texts = large_library.questions(WARM_UP + MEASURED)
    seconds: dict[str, list[float]] = {"all": [], "ru": [], "en": []}
    stages: dict[str, list[float]] = {}
    with box.client() as client:
        for number, text in enumerate(texts):
            started = time.perf_counter()
            answer = client.post("/api/search", json={"query": text, "top_k": 5})
            elapsed = time.perf_counter() - started
            answer.raise_for_status()
            if number < WARM_UP:
                continue
            body = answer.json()
            seconds["all"].append(elapsed)
            seconds["ru" if body["language"] == "ru" else "en"].append(elapsed)
            for stage, value in body["timings_ms"].items():
                stages.setdefault(f"{'ru' if body['language'] == 'ru' else 'en'} {stage}", []).append(value)
    bench = f"search-latency {chunks:,}"
    rows = [
        Row(bench, "p50", _ms(seconds["all"], 50), "ms", 15, at_least=False),
        Row(bench, "p99", _ms(seconds["all"], 99), "ms", 60, at_least=False),
        Row(bench, "p50 en (both legs)", _ms(seconds["en"], 50), "ms"),
        Row(bench, "p50 ru (BM25 only)", _ms(seconds["ru"], 50), "ms"),
    ]
    rows += [Row(bench, f"stage {name} p50", float(np.median(values)), "ms") for name, values in sorted(stages.items())]
    rows.append(Row(bench, "resident memory", box.resident_bytes() / 2**20, "MiB"))
    return rows


def graph_recall(home: Path) -> Row:
    """Share of the 10 exact neighbours that graph search finds, over 100 vectors near stored ones."""
    index = QdrantVectorIndex(home / "indexes", large_library.DIMENSIONS)
    chance, access = np.random.default_rng(5), AccessFilter(frozenset({"default"}))
    found = wanted = 0
    for _ in range(100):
        vector = np.asarray(chance.standard_normal(large_library.DIMENSIONS), np.float32)
        start = index.search(vector, access, 1)  # any place of the collection: neighbourhoods are what is asked about
        near = large_library.near(index.vector(start[0].chunk_id), chance)
        exact = {hit.chunk_id for hit in index.search(near, access, 10, exact=True)}
        found += len(exact & {hit.chunk_id for hit in index.search(near, access, 60)})
        wanted += len(exact)
    index.close()
    return Row("search-latency", "graph recall of the exact top 10 (leg depth 60)", found / wanted, "", 0.95)


def _ms(values: list[float], percentile: float) -> float:
    return float(np.percentile(values, percentile)) * 1e3 if values else float("nan")


if __name__ == "__main__":
    raise SystemExit(main())
