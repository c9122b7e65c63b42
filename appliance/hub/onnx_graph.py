"""A small writer for ONNX graphs: names nodes and constants, so that the same calls give the same bytes. Needs ``onnx``; used at setup only.

Owns naming, constants, serialisation. Does not know any model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET: Final = 20  # the first with Gelu; LayerNormalization came with 17
IR_VERSION: Final = 10  # read by ONNX Runtime from 1.18 on


class GraphWriter:
    """Collects nodes in order. A value is the name of a tensor."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """A constant under ``name``; the first array given for a name stays."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def scalar(self, name: str, value: np.generic) -> str:
        """A constant of rank 0."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the name of that output."""
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{len(self._nodes)}", **attributes))
        return name

    def to_bytes(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> bytes:
        """The checked model. Deterministic for one input."""
        graph = helper.make_graph(self._nodes, self._name, list(inputs), list(outputs), list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="appliance", opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))
