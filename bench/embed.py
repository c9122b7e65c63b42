"""Embedding: latency of one query (idle and under ingest), bulk chunks/s, memory, time to load. `make bench-embed [JSON=FILE]`.

The texts are generated, so no evaluation data is needed; what the vectors are worth is measured by `bench.retrieval_quality`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.home import Home
from appliance.hub.models_toml import load_home_models
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import seal_environment
from bench.report import Report, arguments
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings

CHUNK_TOKENS = 200
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "are",
    "as",
    "with",
    "they",
    "at",
    "be",
    "this",
    "from",
    "have",
    "or",
    "by",
    "one",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "an",
    "your",
    "which",
    "their",
    "said",
    "if",
    "do",
    "will",
    "each",
    "about",
    "how",
    "up",
    "out",
    "them",
    "then",
    "she",
    "many",
    "some",
    "so",
    "these",
    "would",
    "other",
    "into",
    "has",
    "more",
    "her",
    "two",
    "like",
    "him",
    "see",
    "time",
    "could",
    "contract",
    "delivery",
    "supplier",
    "payment",
    "invoice",
    "warranty",
    "engine",
    "pressure",
    "river",
    "century",
    "government",
    "population",
    "system",
    "energy",
    "history",
    "language",
    "music",
]


def main() -> int:
    """0 when it ran to its end, the code of the error otherwise."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="minilm", help="alias in models.toml")
    parser.add_argument("--home", type=Path, default=Home.default().path)
    options = parser.parse_args()
    seal_environment(options.home)
    report = Report("embed", options.json)
    try:
        asyncio.run(measure(options.home, options.model, report))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})\nhint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return report.close()


async def measure(home: Path, model: str, report: Report) -> None:
    """All figures of one model."""
    before = resident_mb()
    started = time.perf_counter()
    encoder = OnnxEncoder.load(load_home_models(home).get("embed", model), home / "models", EmbedSettings.read(query_cache_entries=0))
    report.add("load, digests checked", time.perf_counter() - started, "s", 1.0, higher=False)
    report.add("memory after loading", resident_mb() - before, "MB", 200, higher=False)
    source = random.Random(7)
    idle = await query_seconds(encoder, [sentence(source, 10) for _ in range(200)])
    report.add("query of 10 words, p50", 1e3 * quantile(idle, 0.5), "ms", 4.0, higher=False)
    report.add("query of 10 words, p99", 1e3 * quantile(idle, 0.99), "ms")
    chunks = [chunk(encoder, source) for _ in range(240)]
    report.add("bulk, 200-token chunks, best of 3", max([await bulk_rate(encoder, chunks) for _ in range(3)]), "chunks/s", 60)
    busy = time.process_time()
    await bulk_rate(encoder, chunks)
    report.add("bulk, core time of a chunk", 1e3 * (time.process_time() - busy) / len(chunks), "ms")
    report.add("bulk, 25-word sentences", await bulk_rate(encoder, [sentence(source, 25) for _ in range(600)]), "sentences/s")
    report.add("memory after bulk", resident_mb() - before, "MB", 250, higher=False)
    await under_ingest(encoder, chunks * 3, source, report)
    encoder.close()


async def under_ingest(encoder: OnnxEncoder, chunks: Sequence[str], source: random.Random, report: Report) -> None:
    """Ten queries a second beside bulk work."""
    bulk = asyncio.create_task(bulk_rate(encoder, chunks))
    waits: list[float] = []
    while not bulk.done():
        await asyncio.sleep(0.1)
        waits += await query_seconds(encoder, [sentence(source, 10)])
    report.add("query beside ingest, p50", 1e3 * quantile(waits, 0.5), "ms", 15.0, higher=False)
    report.add("query beside ingest, p99", 1e3 * quantile(waits, 0.99), "ms", 60.0, higher=False)
    report.add("bulk beside 10 queries/s", await bulk, "chunks/s")


async def query_seconds(encoder: OnnxEncoder, texts: Sequence[str]) -> list[float]:
    """Seconds of each, one after the other."""
    seconds = []
    for text in texts:
        started = time.perf_counter()
        await encoder.embed([text])
        seconds.append(time.perf_counter() - started)
    return seconds


async def bulk_rate(encoder: OnnxEncoder, texts: Sequence[str]) -> float:
    """Texts per second in the background lane, 64 a call as ingest does."""
    started = time.perf_counter()
    for first in range(0, len(texts), 64):
        await encoder.embed(texts[first : first + 64], background=True)
    return len(texts) / (time.perf_counter() - started)


def sentence(source: random.Random, words: int) -> str:
    return " ".join(source.choices(WORDS, k=words))


def chunk(encoder: OnnxEncoder, source: random.Random) -> str:
    text = sentence(source, CHUNK_TOKENS)
    while encoder.count_tokens(text) > CHUNK_TOKENS - 2:
        text = text.rsplit(" ", 1)[0]
    return text


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def resident_mb() -> float:
    """Resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
