"""Encoders and rerankers as services: what batching of queries and bucketing by length are worth, pairs/s of a cross-encoder. `make bench-encoders`.

Core time is the time that the process computed, whatever else the machine did meanwhile; rates and latencies are what a caller saw. The cross-encoder
has random weights and the size of ms-marco-MiniLM-L6 (6 layers of 384): speed does not depend on what the weights say.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.home import Home
from appliance.hub.model_spec import ModelSpec
from appliance.hub.models_toml import load_home_models
from appliance.hub.onnx_bert import BertShape
from appliance.hub.snapshot_writing import write_snapshot
from appliance.inference.batches import BATCH_TEXTS, CPU_LIMITS, BatchLimits, padded_tokens, plan_batches
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import seal_environment
from appliance.testing.cross_encoder_onnx import convert_cross_encoder, random_cross_encoder
from bench.embed import quantile, sentence
from bench.report import Report, arguments
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings
from services.rerank.onnx_reranker import OnnxReranker
from services.rerank.settings import RerankSettings

MINILM = BertShape(hidden=384, heads=12, layers=6, epsilon=1e-12, positions=512)
UNPADDED = BatchLimits(padding=10_000)  # by length, without a bound on the padding: as it was before
CALLERS = 16
QUERIES = 320
DOCUMENTS = 160


def main() -> int:
    """0 when it ran to its end, the code of the error otherwise."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="minilm", help="alias in models.toml")
    parser.add_argument("--home", type=Path, default=Home.default().path)
    options = parser.parse_args()
    seal_environment(options.home)
    report = Report("encoders", options.json)
    try:
        encoder = OnnxEncoder.load(
            load_home_models(options.home).get("embed", options.model), options.home / "models", EmbedSettings.read(query_cache_entries=0)
        )
        asyncio.run(measure_queries(encoder, report))
        measure_bucketing(encoder, report)
        encoder.close()
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure_rerank(Path(folder), options.home / "models", report))
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})\nhint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return report.close()


async def measure_queries(encoder: OnnxEncoder, report: Report) -> None:
    """One caller, and sixteen at once, with each query run alone and with those that wait run together."""
    batched = encoder.queries
    alone = batched.with_limits(BatchLimits(texts=1), 0.0)
    source = random.Random(5)
    for name, queries in (("one by one", alone), ("together", batched)):
        encoder.queries = queries
        texts = [sentence(source, 8) for _ in range(60)]
        idle = [seconds for text in texts for seconds in await _asked(encoder, [text])]
        report.add(f"query of 8 words, one caller, {name}: p50", 1e3 * quantile(idle, 0.5), "ms")
        runs, busy, started = queries.runs, time.process_time(), time.perf_counter()
        texts = [sentence(source, source.randint(4, 12)) for _ in range(QUERIES)]
        waits = await asyncio.gather(*(_asked(encoder, texts[number::CALLERS]) for number in range(CALLERS)))
        report.add(f"{CALLERS} callers, {name}: queries/s", QUERIES / (time.perf_counter() - started), "1/s")
        report.add(f"{CALLERS} callers, {name}: p50", 1e3 * quantile([wait for one in waits for wait in one], 0.5), "ms")
        report.add(f"{CALLERS} callers, {name}: core time of a query", 1e3 * (time.process_time() - busy) / QUERIES, "ms")
        report.add(f"{CALLERS} callers, {name}: queries in a run", QUERIES / (queries.runs - runs), "")


def measure_bucketing(encoder: OnnxEncoder, report: Report) -> None:
    """Texts of 2 to 256 tokens, short ones more often, run in the order of arrival and by length."""
    source = random.Random(6)
    tokens = [[101, *[2000 + source.randrange(1000)] * (length - 2), 102] for length in (int(2 ** source.uniform(1.6, 8)) for _ in range(DOCUMENTS))]
    lengths = [len(ids) for ids in tokens]
    in_order = [list(range(first, min(first + BATCH_TEXTS, DOCUMENTS))) for first in range(0, DOCUMENTS, BATCH_TEXTS)]
    for name, batches in (
        ("in order of arrival", in_order),
        ("by length", plan_batches(lengths, UNPADDED)),
        ("by length, padding bounded", plan_batches(lengths, CPU_LIMITS)),
    ):
        busy = time.process_time()
        for batch in batches:
            encoder.run([tokens[row] for row in batch])
        spent = time.process_time() - busy
        report.add(f"mixed lengths, {name}: computed/used tokens", padded_tokens(lengths, batches) / sum(lengths), "")
        report.add(f"mixed lengths, {name}: core time of a text", 1e3 * spent / DOCUMENTS, "ms")


async def measure_rerank(folder: Path, hub: Path, report: Report) -> None:
    """Forty passages of 120 words for one question, as search asks, and many at once."""
    weights = convert_cross_encoder(random_cross_encoder(MINILM, 30_522), MINILM)
    tokenizer = next(hub.glob("embed/minilm-v*/tokenizer.json"), None)
    if tokenizer is None:
        raise ApplianceError("snapshot_missing", "the tokenizer of embed/minilm is not in the hub", hint="run `make setup`")

    def fill(target: Path) -> None:
        (target / "model.onnx").write_bytes(weights)
        (target / "tokenizer.json").write_bytes(tokenizer.read_bytes())

    snapshot = write_snapshot(folder, "rerank/random-v1", {}, fill)
    spec = ModelSpec("rerank", "random", "onnx", path="rerank/random-v1", digest=snapshot.digest, max_context=512)
    reranker = OnnxReranker.load(spec, snapshot, RerankSettings.read())
    source = random.Random(7)
    for count, words in ((40, 120), (100, 30)):
        passages = [sentence(source, words) for _ in range(count)]
        await reranker.rerank("warm", passages[:2])
        busy, started = time.process_time(), time.perf_counter()
        await reranker.rerank(sentence(source, 10), passages)
        report.add(f"cross-encoder, {count} passages of {words} words: pairs/s", count / (time.perf_counter() - started), "1/s")
        report.add(f"cross-encoder, {count} passages of {words} words: core time of a pair", 1e3 * (time.process_time() - busy) / count, "ms")
    reranker.close()


async def _asked(encoder: OnnxEncoder, texts: Sequence[str]) -> list[float]:
    seconds = []
    for text in texts:
        started = time.perf_counter()
        await encoder.embed([text])
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
