"""Encoders as the usual tools export them: states of every token, pooled here; what is no text encoder is refused when it is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from appliance.hub.model_spec import ModelSpec
from appliance.hub.onnx_bert import _BertWriter, convert_bert
from appliance.hub.snapshot_writing import write_snapshot
from appliance.kit.errors import ApplianceError
from appliance.testing.check_encoder import check_encoder
from services.embed.onnx_encoder import OnnxEncoder
from services.embed.settings import EmbedSettings
from tests.unit import tiny_bert
from tests.unit.tiny_encoders import SHAPE, tokenizer_json

TEXTS = ["pump", "a contract ends in may", "music " * 40, ""]


class StatesWriter(_BertWriter):
    """The output is (batch, tokens, hidden); there is an input ``token_type_ids``, as in most exports."""

    def to_bytes(self) -> bytes:
        graph = self._graph
        bias = self._attention_bias(graph.op("Cast", ["attention_mask"], to=TensorProto.FLOAT))
        states = self._embeddings()
        for number in range(self._shape.layers):
            states = self._layer(f"encoder.layer.{number}.", states, bias)
        types = graph.op("Unsqueeze", [graph.op("Cast", ["token_type_ids"], to=TensorProto.FLOAT), graph.constant("last", np.array([2], np.int64))])
        graph.op("Add", [states, types], output="last_hidden_state")
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
        return graph.to_bytes(inputs, [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 24])])


def load(hub: Path, model: bytes, pooling: dict[str, object] | None = None, dimensions: int = 24) -> OnnxEncoder:
    path = f"embed/tiny-v{1 + len(list((hub / 'embed').glob('*')) if (hub / 'embed').exists() else [])}"

    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(model)
        (folder / "tokenizer.json").write_bytes(tokenizer_json())
        if pooling is not None:
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))

    snapshot = write_snapshot(hub, path, {}, fill)
    spec = ModelSpec("embed", "tiny", "onnx", path=path, digest=snapshot.digest, max_context=32, dimensions=24)
    return OnnxEncoder.load(replace(spec, dimensions=dimensions), hub, EmbedSettings(query_cache_entries=0))


async def test_states_are_pooled_by_their_mean_as_the_converted_model_does(tmp_path: Path) -> None:
    ours = load(tmp_path, convert_bert(tiny_bert.weights(), SHAPE, "fp32"))
    for pooling in (None, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "word_embedding_dimension": 24}):
        exported = load(tmp_path, StatesWriter(tiny_bert.weights(), SHAPE, "fp32").to_bytes(), pooling)

        async def make(encoder: OnnxEncoder = exported) -> OnnxEncoder:
            return encoder

        await check_encoder(make)
        assert np.allclose(await exported.embed(TEXTS), await ours.embed(TEXTS), atol=1e-5)
        exported.close()
    ours.close()


async def test_a_model_that_asks_for_its_first_token_gets_it(tmp_path: Path) -> None:
    mean = load(tmp_path, StatesWriter(tiny_bert.weights(), SHAPE, "fp32").to_bytes())
    first = load(tmp_path, StatesWriter(tiny_bert.weights(), SHAPE, "fp32").to_bytes(), {"pooling_mode_cls_token": True})
    one, other = await mean.embed(["pump"]), await first.embed(["pump"])
    assert abs(float(np.linalg.norm(other)) - 1) < 1e-5
    assert float((one * other).sum()) < 0.999
    mean.close()
    first.close()


def test_what_is_no_encoder_of_that_size_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    states = StatesWriter(tiny_bert.weights(), SHAPE, "fp32").to_bytes()
    for told, act in (
        ("one vector of 12", lambda: load(tmp_path, states, dimensions=12)),
        ("pooling_mode_max_tokens", lambda: load(tmp_path, states, {"pooling_mode_max_tokens": True})),
    ):
        with pytest.raises(ApplianceError, match=told) as caught:
            act()
        assert caught.value.code == "snapshot_altered"
