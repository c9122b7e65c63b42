"""The cross-encoder on ONNX Runtime over a tiny model of random weights, from a signed snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from appliance.hub.leases import in_use
from appliance.kit.errors import ApplianceError
from appliance.testing.check_reranker import check_reranker
from services.allinone.reranking import lexical
from services.rerank.bootstrap import EndingReranker, load_reranker
from services.rerank.pair_pieces import PairPieces
from services.rerank.settings import RerankSettings
from tests.unit.tiny_encoders import TinyHub, altered, make_hub, tokenizer_json

DOCUMENTS = ["the pump", "a contract ends in may", "music " * 9, "z"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> TinyHub:
    return make_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
async def reranker(hub: TinyHub) -> AsyncIterator[EndingReranker]:
    loaded = load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings())
    yield loaded
    await loaded.end()


async def test_the_cross_encoder_keeps_the_contract(reranker: EndingReranker) -> None:
    async def make() -> EndingReranker:
        return reranker

    await check_reranker(make)


async def test_the_built_in_reranker_keeps_the_contract() -> None:
    async def make() -> EndingReranker:
        return lexical(None)

    await check_reranker(make, tells_documents_apart=False, independent=False)


async def test_a_score_is_the_logistic_of_what_the_model_says_of_the_pair(hub: TinyHub, reranker: EndingReranker) -> None:
    session = onnxruntime.InferenceSession((hub.hub / "rerank/cross-v1/model.onnx").read_bytes())
    pairs = PairPieces(tokenizer_json(), 32).join("when does it end", DOCUMENTS)
    for pair, score in zip(pairs, await reranker.rerank("when does it end", DOCUMENTS), strict=True):
        given = {"input_ids": [pair.ids], "attention_mask": [[1] * len(pair.ids)], "token_type_ids": [pair.types]}
        ((logit,),) = session.run(None, {name: np.array(value, np.int64) for name, value in given.items()})[0]
        assert score == pytest.approx(1 / (1 + np.exp(-float(logit))), abs=1e-6)


async def test_two_logits_give_the_probability_of_the_second(hub: TinyHub) -> None:
    two = load_reranker(hub.specs["two"], hub.hub, hub.trust, RerankSettings())
    session = onnxruntime.InferenceSession((hub.hub / "rerank/two-v1/model.onnx").read_bytes())
    (pair,) = PairPieces(tokenizer_json(), 32).join("pump", ["contract"])
    given = {"input_ids": [pair.ids], "attention_mask": [[1] * len(pair.ids)], "token_type_ids": [pair.types]}
    (logits,) = session.run(None, {name: np.array(value, np.int64) for name, value in given.items()})[0]
    assert (await two.rerank("pump", ["contract"]))[0] == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), abs=1e-6)
    await two.end()


def test_the_longer_text_of_a_pair_is_cut_and_the_shorter_one_is_whole() -> None:
    pieces = PairPieces(tokenizer_json(), 32)
    (alone,) = pieces.join("pump", [""])
    question = len(alone.ids) - 3
    (cut,) = pieces.join("pump", ["contract " * 50])
    assert (len(cut.ids), cut.types.count(0), cut.types.count(1)) == (32, question + 2, 32 - question - 2)
    (both,) = pieces.join("contract " * 50, ["contract " * 50])
    assert abs(both.types.count(0) - both.types.count(1)) <= 2


async def test_too_many_documents_and_too_many_tokens_are_refused(hub: TinyHub) -> None:
    small = load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings(max_documents=3, max_tokens=512))
    with pytest.raises(ApplianceError) as many:
        await small.rerank("pump", ["x"] * 4)
    assert many.value.code == "too_large"
    long = load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings(max_tokens=512))
    with pytest.raises(ApplianceError) as tokens:
        await long.rerank("pump", ["contract " * 50] * 17)
    assert tokens.value.code == "too_large"
    await small.end()
    await long.end()


async def test_more_than_may_wait_is_overloaded_and_it_recovers(hub: TinyHub) -> None:
    narrow = load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings(query_threads=1, max_waiting_queries=1))
    answers = await asyncio.gather(*(narrow.rerank("pump", [f"contract {n}"]) for n in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert refused
    assert {error.code for error in refused if isinstance(error, ApplianceError)} == {"overloaded"}
    assert len(await narrow.rerank("pump", ["now"])) == 1
    await narrow.end()


async def test_an_altered_an_unsigned_and_a_wrong_model_are_refused(tmp_path: Path) -> None:
    hub = make_hub(tmp_path)
    stranger = make_hub(tmp_path / "other").trust
    with pytest.raises(ApplianceError) as unsigned:
        load_reranker(hub.specs["cross"], hub.hub, stranger, RerankSettings())
    assert unsigned.value.code == "snapshot_unsigned"
    with pytest.raises(ApplianceError, match="not one logit per pair") as wrong:
        load_reranker(hub.specs["encoder"], hub.hub, hub.trust, RerankSettings())
    assert wrong.value.code == "snapshot_altered"
    with pytest.raises(ApplianceError) as missing:
        load_reranker(replace(hub.specs["cross"], path="rerank/gone-v1"), hub.hub, hub.trust, RerankSettings())
    assert missing.value.code == "snapshot_missing"
    altered(hub, "cross")
    with pytest.raises(ApplianceError) as changed:
        load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings())
    assert changed.value.code == "snapshot_altered"
    assert not in_use(hub.hub / "rerank/cross-v1"), "a model that was refused holds no lease"


async def test_a_loaded_model_holds_its_snapshot_until_it_has_ended(hub: TinyHub) -> None:
    loaded = load_reranker(hub.specs["two"], hub.hub, hub.trust, RerankSettings())
    assert in_use(hub.hub / "rerank/two-v1")
    await loaded.end()
    assert not in_use(hub.hub / "rerank/two-v1")
