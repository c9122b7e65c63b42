"""BERT sentence encoder → ONNX, without torch: tensors by their safetensors names in, bytes of a model out.

The graph is the published one (Devlin et al. 2018; post-LayerNorm, erf Gelu), then mean pooling over the mask and L2 normalisation as in
sentence-transformers (``1_Pooling`` with ``pooling_mode_mean_tokens``, ``2_Normalize``): output ``embedding`` is (batch, hidden), unit rows.

Plain standard operators: ONNX Runtime fuses MatMul scaling and BiasGelu when it loads (0.08 s), the file is the same for every CPU, and its contrib
operators measured no faster (docs/adr/0003-encoder-runtime.md).

``int8``: weights of the 36 dense layers per output channel, activations quantised per row while running (symmetric around 128, as unsigned bytes).
Per row, not per tensor as ONNX Runtime's own recipe does: then a vector does not depend on its neighbours in the batch, and cos to fp32 is ≥ 0.99.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from appliance.hub.onnx_graph import GraphWriter

Precision = Literal["fp32", "int8"]
Tensors = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]

INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
EMBEDDING: Final = "embedding"
MASKED: Final = np.float32(-10_000.0)  # added to the score of a padded position, as in the original BERT code
_LEVELS: Final = 127  # symmetric int8


@dataclass(frozen=True, slots=True)
class BertShape:
    """Sizes from ``config.json``: ``positions`` is the longest input to keep, in tokens."""

    hidden: int
    heads: int
    layers: int
    epsilon: float
    positions: int


def convert_bert(tensors: Tensors, shape: BertShape, precision: Precision) -> bytes:
    """The ONNX file: inputs ``input_ids``, ``attention_mask`` int64 (batch, tokens), output ``embedding`` float32 (batch, hidden).

    Raises:
        KeyError: a tensor that BERT has is not there.
    """
    return _BertWriter(tensors, shape, precision).to_bytes()


class _BertWriter:
    def __init__(self, tensors: Tensors, shape: BertShape, precision: Precision) -> None:
        self._tensors = tensors
        self._shape = shape
        self._precision = precision
        self._graph = GraphWriter("bert")

    def to_bytes(self) -> bytes:
        graph = self._graph
        mask = graph.op("Cast", [ATTENTION_MASK], to=TensorProto.FLOAT)
        bias = self._attention_bias(mask)
        states = self._embeddings()
        for number in range(self._shape.layers):
            states = self._layer(f"encoder.layer.{number}.", states, bias)
        self._pool(states, mask)
        tokens = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in (INPUT_IDS, ATTENTION_MASK)]
        vectors = helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", self._shape.hidden])
        return graph.to_bytes(tokens, [vectors])

    def _attention_bias(self, mask: str) -> str:
        """(batch, 1, 1, tokens): 0 where a token is, -10000 where padding is."""
        graph = self._graph
        wide = graph.op("Unsqueeze", [mask, graph.constant("axes_1_2", np.array([1, 2], np.int64))])
        padding = graph.op("Sub", [graph.scalar("one", np.float32(1)), wide])
        return graph.op("Mul", [padding, graph.scalar("masked", MASKED)])

    def _embeddings(self) -> str:
        """Words + positions + token type 0. Positions and type are added here, once, instead of in every run."""
        graph = self._graph
        positions = self._tensor("embeddings.position_embeddings.weight")[: self._shape.positions]
        table = positions + self._tensor("embeddings.token_type_embeddings.weight")[0]
        words = graph.op("Gather", [graph.constant("words", self._tensor("embeddings.word_embeddings.weight")), INPUT_IDS])
        length = graph.op("Shape", [INPUT_IDS], start=1, end=2)
        zero = graph.constant("axis_0", np.array([0], np.int64))
        used = graph.op("Slice", [graph.constant("positions", table), zero, length, zero])
        return self._layer_norm("embeddings.LayerNorm.", graph.op("Add", [words, used]))

    def _layer(self, prefix: str, states: str, bias: str) -> str:
        graph = self._graph
        attended = self._dense(f"{prefix}attention.output.dense.", self._attention(f"{prefix}attention.self.", states, bias))
        states = self._layer_norm(f"{prefix}attention.output.LayerNorm.", graph.op("Add", [attended, states]))
        inner = graph.op("Gelu", [self._dense(f"{prefix}intermediate.dense.", states)])
        outer = self._dense(f"{prefix}output.dense.", inner)
        return self._layer_norm(f"{prefix}output.LayerNorm.", graph.op("Add", [outer, states]))

    def _attention(self, prefix: str, states: str, bias: str) -> str:
        """Scaled dot-product attention (Vaswani et al. 2017, eq. 1)."""
        graph, shape = self._graph, self._shape
        width = shape.hidden // shape.heads
        split = graph.constant("split_heads", np.array([0, 0, shape.heads, width], np.int64))
        rows = self._quantised(states) if self._precision == "int8" else None
        query, key, value = (
            graph.op("Transpose", [graph.op("Reshape", [self._dense(f"{prefix}{name}.", states, rows), split])], perm=order)
            for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = graph.op("Div", [graph.op("MatMul", [query, key]), graph.scalar("root_width", np.sqrt(np.float32(width)))])
        weights = graph.op("Softmax", [graph.op("Add", [scores, bias])], axis=-1)
        mixed = graph.op("Transpose", [graph.op("MatMul", [weights, value])], perm=[0, 2, 1, 3])
        return graph.op("Reshape", [mixed, graph.constant("join_heads", np.array([0, 0, shape.hidden], np.int64))])

    def _pool(self, states: str, mask: str) -> None:
        """Mean over the tokens that are there, then unit length."""
        graph = self._graph
        axis = graph.constant("axis_1", np.array([1], np.int64))
        column = graph.op("Unsqueeze", [mask, graph.constant("axis_2", np.array([2], np.int64))])
        total = graph.op("ReduceSum", [graph.op("Mul", [states, column]), axis], keepdims=0)
        count = graph.op("Max", [graph.op("ReduceSum", [mask, axis], keepdims=1), graph.scalar("tiny", np.float32(1e-9))])
        graph.op("LpNormalization", [graph.op("Div", [total, count])], output=EMBEDDING, axis=-1, p=2)

    def _layer_norm(self, prefix: str, states: str) -> str:
        scale, shift = (self._graph.constant(prefix + name, self._tensor(prefix + name)) for name in ("weight", "bias"))
        return self._graph.op("LayerNormalization", [states, scale, shift], axis=-1, epsilon=self._shape.epsilon)

    def _dense(self, prefix: str, states: str, rows: tuple[str, str] | None = None) -> str:
        """``states @ weight.T + bias``; ``rows`` are the quantised ``states`` when the caller has them already."""
        graph = self._graph
        weight = self._tensor(f"{prefix}weight").T
        bias = graph.constant(f"{prefix}bias", self._tensor(f"{prefix}bias"))
        if self._precision == "fp32":
            return graph.op("Add", [graph.op("MatMul", [states, graph.constant(f"{prefix}weight", weight)]), bias])
        codes, row_scale = rows or self._quantised(states)
        levels, channel_scale = quantise_channels(weight)
        zero = graph.scalar("zero_point", np.uint8(128))
        sums = graph.op("MatMulInteger", [codes, graph.constant(f"{prefix}weight", levels), zero])
        per_channel = graph.op("Mul", [graph.op("Cast", [sums], to=TensorProto.FLOAT), graph.constant(f"{prefix}scale", channel_scale)])
        return graph.op("Add", [graph.op("Mul", [per_channel, row_scale]), bias])

    def _quantised(self, states: str) -> tuple[str, str]:
        """Codes (uint8 around 128) and the scale of each row."""
        graph = self._graph
        last = graph.constant("last_axis", np.array([-1], np.int64))
        peak = graph.op("ReduceMax", [graph.op("Abs", [states]), last], keepdims=1)
        scale = graph.op("Div", [graph.op("Max", [peak, graph.scalar("tiny", np.float32(1e-9))]), graph.scalar("levels", np.float32(_LEVELS))])
        rounded = graph.op("Round", [graph.op("Div", [states, scale])])
        shifted = graph.op("Add", [rounded, graph.scalar("shift", np.float32(128))])
        return graph.op("Cast", [shifted], to=TensorProto.UINT8), scale

    def _tensor(self, name: str) -> npt.NDArray[Any]:
        return self._tensors[name]


def quantise_channels(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric int8 by column: ``weight ≈ levels * scale``, weight (inputs, outputs), scale (outputs,)."""
    scale = (np.abs(weight).max(axis=0) / np.float32(_LEVELS)).astype(np.float32)
    scale[scale == 0] = 1
    levels = np.clip(np.rint(weight / scale), -_LEVELS, _LEVELS).astype(np.int8)
    return levels, scale
