"""``/v1/embeddings`` and ``/v1/rerank`` with several models, in the shapes of OpenAI, Cohere and Jina, within bounds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from appliance.contracts.embed.v1.api import Encoder, Vectors
from appliance.contracts.rerank.v1.api import TextReranker
from appliance.hub.model_spec import ModelCatalog, ModelSpec
from appliance.kit.errors import ApplianceError
from appliance.testing.fakes_encoder import HashingEncoder
from services.allinone.model_cards import CatalogCards
from services.allinone.reranking import NamedEncoders, NamedRerankers, open_rerankers, reranker_specs
from services.embed.bootstrap import load_encoder, open_encoders
from services.embed.settings import EmbedSettings
from services.gateway.settings import GatewaySettings
from services.rerank.settings import RerankSettings
from tests.integration.gateway_bed import LetterEncoder, WordReranker, client_of, open_bed
from tests.unit.tiny_encoders import make_hub

CATALOG = ModelCatalog(
    (
        ModelSpec("embed", "spare", "onnx"),
        ModelSpec("embed", "letters", "onnx"),
        ModelSpec("embed", "hashes", "onnx"),
        ModelSpec("rerank", "default", "lexical"),
        ModelSpec("rerank", "lengths", "onnx"),
        ModelSpec("rerank", "gpu", "sentence-transformers"),
    )
)
TEXTS = ["pump", "the pump ends", "apples"]


class LengthReranker:
    async def rerank(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        return [len(document) / 100 for document in documents]


class Choice:
    def __init__(self) -> None:
        self.hashes = HashingEncoder()

    async def encoder(self, alias: str) -> Encoder:
        return {"embed.letters": LetterEncoder(), "embed.hashes": self.hashes}[alias]

    async def reranker(self, alias: str) -> TextReranker:
        return {"rerank.default": WordReranker(), "rerank.lengths": LengthReranker()}[alias]


def several() -> dict[str, object]:
    choice = Choice()
    return {"models": CatalogCards(CATALOG, ("letters", "hashes")), "encoders": choice, "rerankers": choice}


async def test_the_named_encoder_answers(tmp_path: Path) -> None:
    async with open_bed(tmp_path, **several()) as bed, client_of(bed) as client:
        found = {}
        for name in ("embed.letters", "letters", "hashes", "default"):
            answer = await client.post("/v1/embeddings", json={"model": name, "input": ["abc", "b"]})
            found[name] = [row["embedding"] for row in answer.json()["data"]]
        assert found["letters"] == found["embed.letters"] == found["default"], "default is the box's own, not the first of the file"
        assert len(found["letters"][0]) == 3
        assert len(found["hashes"][0]) == HashingEncoder().dimensions
        refused = await client.post("/v1/embeddings", json={"model": "embed.spare", "input": "x"})
        assert (refused.status_code, "APPLIANCE_EMBED_SERVE" in refused.json()["error"]["hint"]) == (503, True)
        absent = await client.post("/v1/embeddings", json={"model": "absent", "input": "x"})
        assert (absent.status_code, absent.json()["error"]["code"]) == (404, "model_not_found")


async def test_base64_and_numbers_are_the_same_vector_and_usage_is_counted(tmp_path: Path) -> None:
    async with open_bed(tmp_path, **several()) as bed, client_of(bed) as client:
        plain = (await client.post("/v1/embeddings", json={"model": "letters", "input": ["a b", "c"], "dimensions": 3})).json()
        packed = (await client.post("/v1/embeddings", json={"model": "letters", "input": ["a b", "c"], "encoding_format": "base64"})).json()
        decoded = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
        assert np.allclose(decoded, plain["data"][0]["embedding"])
        assert plain["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
        assert [row["index"] for row in plain["data"]] == [0, 1]
        assert (plain["object"], plain["data"][0]["object"]) == ("list", "embedding")


@pytest.mark.parametrize(
    "body", [{"input": [1, 2, 3]}, {"input": [[1, 2], [3]]}, {"input": []}, {"input": ""}, {"input": ["a", ""]}, {"input": ["x"] * 2049}]
)
async def test_what_cannot_be_embedded_is_refused_by_name(tmp_path: Path, body: dict[str, object]) -> None:
    async with open_bed(tmp_path, **several()) as bed, client_of(bed) as client:
        answer = await client.post("/v1/embeddings", json={"model": "letters", **body})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_request")
        assert error["param"].startswith("input")


async def test_token_ids_are_refused_with_what_to_do_and_so_are_other_dimensions(tmp_path: Path) -> None:
    async with open_bed(tmp_path, **several()) as bed, client_of(bed) as client:
        tokens = (await client.post("/v1/embeddings", json={"model": "letters", "input": [[1, 2]]})).json()["error"]
        assert "token ids" in tokens["message"]
        assert "check_embedding_ctx_length" in tokens["hint"]
        other = (await client.post("/v1/embeddings", json={"model": "letters", "input": "a", "dimensions": 2})).json()["error"]
        assert (other["param"], "3 dimensions" in other["message"]) == ("dimensions", True)


async def test_the_named_reranker_answers_in_the_shapes_of_cohere_and_jina(tmp_path: Path) -> None:
    async with open_bed(tmp_path, **several()) as bed, client_of(bed) as client:
        objects = [{"text": text, "title": "ignored"} for text in TEXTS]
        body = {"model": "rerank.lengths", "query": "pump", "documents": [*objects[:2], TEXTS[2]], "top_n": 2, "return_documents": True}
        told = (await client.post("/v1/rerank", json=body)).json()
        assert [row["index"] for row in told["results"]] == [1, 2], "by length, cut at top_n"
        assert told["results"][0]["document"] == {"text": TEXTS[1]}
        assert told["meta"] == {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}}
        assert told["id"]
        assert told["usage"]["total_tokens"] > 0
        default = (await client.post("/v1/rerank", json={"query": "pump", "documents": TEXTS})).json()
        assert (default["model"], default["results"][-1]["index"]) == ("rerank.default", 2)
        assert default["results"][0].get("document") is None


async def test_a_model_that_this_node_cannot_run_is_not_listed_and_says_why(tmp_path: Path) -> None:
    cards = CatalogCards(CATALOG, ("letters",))
    assert [card.alias for card in cards.cards()] == ["embed.letters", "rerank.default", "rerank.lengths"]
    with pytest.raises(ApplianceError, match="not installed") as caught:
        cards.card("rerank.gpu")
    assert caught.value.code == "unavailable"
    assert "rerank.gpu" in [card.alias for card in CatalogCards(CATALOG, remote=True).cards()]


async def test_the_composed_box_reranks_with_the_built_in_and_with_a_cross_encoder_of_the_hub(tmp_path: Path) -> None:
    hub = make_hub(tmp_path / "hub")
    default = ModelSpec("rerank", "default", "lexical")
    catalog = ModelCatalog((default, hub.specs["cross"], hub.specs["tiny"], hub.specs["other"]))
    rerankers = open_rerankers(catalog, None, lambda: (hub.hub, hub.trust), RerankSettings())
    encoders, _ = open_encoders([hub.specs["other"]], lambda spec: load_encoder(spec, hub.hub, EmbedSettings(), hub.trust))
    changes = {
        "models": CatalogCards(catalog, ("tiny", "other")),
        "encoders": NamedEncoders("tiny", LetterEncoder(), encoders),
        "rerankers": NamedRerankers(rerankers),
    }
    async with open_bed(tmp_path, **changes) as bed, client_of(bed) as client:
        scores = {}
        for name in ("default", "cross"):
            answer = (await client.post("/v1/rerank", json={"model": name, "query": "pump ends", "documents": TEXTS})).json()
            scores[name] = [row["relevance_score"] for row in sorted(answer["results"], key=lambda row: row["index"])]
        assert scores["default"][1] == max(scores["default"]), "the words of the query are found"
        assert scores["cross"] != scores["default"]
        for name, size in (("tiny", 3), ("other", 24)):
            data = (await client.post("/v1/embeddings", json={"model": name, "input": "pump"})).json()["data"]
            assert len(data[0]["embedding"]) == size
        rerankers.take_over(reranker_specs(ModelCatalog((default,))))
        gone = await client.post("/v1/rerank", json={"model": "cross", "query": "pump", "documents": TEXTS})
        assert gone.json()["error"]["code"] == "model_not_found"
    await rerankers.end()
    await encoders.end()


class SlowEncoder(LetterEncoder):
    def __init__(self) -> None:
        self.let_go, self.inside = asyncio.Event(), asyncio.Event()

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        self.inside.set()
        await self.let_go.wait()
        return await super().embed(texts, background=background)


async def test_searches_in_flight_are_bounded_for_the_caller_and_for_the_box(tmp_path: Path) -> None:
    slow = SlowEncoder()
    settings = GatewaySettings(max_searches_at_once=2, max_searches_per_principal=1)
    async with (
        open_bed(tmp_path, settings, encoder=slow) as bed,
        client_of(bed) as admin,
        client_of(bed, bed.reader_key) as rita,
        client_of(bed, bed.stranger_key) as sam,
    ):
        first = asyncio.create_task(admin.post("/v1/embeddings", json={"model": "embedding", "input": "a"}))
        await asyncio.wait_for(slow.inside.wait(), 30)
        again = await admin.post("/v1/rerank", json={"query": "a", "documents": ["b"]})
        assert (again.status_code, again.json()["error"]["code"], again.headers["retry-after"]) == (429, "rate_limited", "1")
        slow.inside.clear()
        second = asyncio.create_task(rita.post("/v1/embeddings", json={"model": "embedding", "input": "b"}))
        await asyncio.wait_for(slow.inside.wait(), 30)
        full = await sam.post("/v1/embeddings", json={"model": "embedding", "input": "c"})
        assert (full.status_code, full.json()["error"]["code"]) == (503, "overloaded")
        slow.let_go.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]
        assert (await sam.post("/v1/rerank", json={"query": "a", "documents": ["b"]})).status_code == 200, "slots are given back"
