"""``BertForSequenceClassification`` as ONNX, for tests and benches: the product takes cross-encoders as ONNX and converts none itself."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from appliance.hub.onnx_bert import BertShape, Tensors, _BertWriter

INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")


def convert_cross_encoder(tensors: Tensors, shape: BertShape) -> bytes:
    """Tensors by their names without ``bert.``; inputs int64 (batch, tokens), output ``logits`` (batch, classes)."""
    return _CrossEncoderWriter(tensors, shape, "fp32").to_bytes()


def random_cross_encoder(shape: BertShape, vocabulary: int, seed: int = 1) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights of the given size, one class: as fast as a trained model, and as good as none."""
    source, hidden = np.random.default_rng(seed), shape.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, hidden),
        "embeddings.position_embeddings.weight": (shape.positions, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
        "classifier.weight": (1, hidden),
        "classifier.bias": (1,),
    }
    norms = ["embeddings.LayerNorm."]
    for layer in (f"encoder.layer.{number}." for number in range(shape.layers)):
        dense = {f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")} | {"attention.output.dense": (hidden, hidden)}
        dense |= {"intermediate.dense": (4 * hidden, hidden), "output.dense": (hidden, 4 * hidden)}
        for name, size in dense.items():
            shapes[f"{layer}{name}.weight"], shapes[f"{layer}{name}.bias"] = size, (size[0],)
        norms += [f"{layer}attention.output.LayerNorm.", f"{layer}output.LayerNorm."]
    tensors = {name: source.normal(0, 0.05, size).astype(np.float32) for name, size in shapes.items()}
    ones, zeros = np.ones(hidden, np.float32), np.zeros(hidden, np.float32)
    return tensors | {f"{norm}weight": ones for norm in norms} | {f"{norm}bias": zeros for norm in norms}


class _CrossEncoderWriter(_BertWriter):
    """Token types are an input; the first token goes through pooler and classifier."""

    def to_bytes(self) -> bytes:
        graph = self._graph
        bias = self._attention_bias(graph.op("Cast", ["attention_mask"], to=TensorProto.FLOAT))
        states = self._embeddings()
        for number in range(self._shape.layers):
            states = self._layer(f"encoder.layer.{number}.", states, bias)
        first = graph.op("Gather", [states, graph.scalar("first", np.int64(0))], axis=1)
        pooled = graph.op("Tanh", [self._dense("pooler.dense.", first)])
        weight, shift = self._tensor("classifier.weight"), self._tensor("classifier.bias")
        product = graph.op("MatMul", [pooled, graph.constant("classifier.weight", weight.T)])
        graph.op("Add", [product, graph.constant("classifier.bias", shift)], output="logits")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS]
        return graph.to_bytes(inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weight.shape[0]])])

    def _embeddings(self) -> str:
        graph = self._graph
        words = graph.op("Gather", [graph.constant("words", self._tensor("embeddings.word_embeddings.weight")), "input_ids"])
        types = graph.op("Gather", [graph.constant("types", self._tensor("embeddings.token_type_embeddings.weight")), "token_type_ids"])
        zero = graph.constant("axis_0", np.array([0], np.int64))
        length = graph.op("Shape", ["input_ids"], start=1, end=2)
        positions = graph.op("Slice", [graph.constant("positions", self._tensor("embeddings.position_embeddings.weight")), zero, length, zero])
        return self._layer_norm("embeddings.LayerNorm.", graph.op("Add", [graph.op("Add", [words, types]), positions]))
