"""A BERT of a few kilobytes: its safetensors, its wheel, and its forward pass in plain numpy to compare with."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 32,
    "vocab_size": 50,
}
Tensors = dict[str, npt.NDArray[np.float32]]


def weights(seed: int = 1) -> Tensors:
    source, hidden, inner = np.random.default_rng(seed), 24, 96

    def random(*shape: int) -> npt.NDArray[np.float32]:
        return source.normal(0, 0.3, shape).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": random(50, hidden),
        "embeddings.position_embeddings.weight": random(32, hidden),
        "embeddings.token_type_embeddings.weight": random(2, hidden),
    }
    shapes = {"attention.output.dense": (hidden, hidden), "intermediate.dense": (inner, hidden), "output.dense": (hidden, inner)}
    shapes |= {f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
    norms = ["embeddings.LayerNorm."]
    for layer in ("encoder.layer.0.", "encoder.layer.1."):
        for name, shape in shapes.items():
            tensors[f"{layer}{name}.weight"], tensors[f"{layer}{name}.bias"] = random(*shape), random(shape[0])
        norms += [f"{layer}attention.output.LayerNorm.", f"{layer}output.LayerNorm."]
    for norm in norms:
        tensors[f"{norm}weight"], tensors[f"{norm}bias"] = 1 + random(hidden), random(hidden)
    return tensors


def to_safetensors(tensors: Tensors) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + tensor.nbytes]}
        body += tensor.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def write_wheel(folder: Path, safetensors: bytes) -> tuple[Path, str]:
    """The wheel ``tiny_bert-1.0`` and its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "tiny_bert-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_bert/model/model.safetensors", safetensors)
        archive.writestr("tiny_bert/model/config.json", json.dumps(CONFIG))
        archive.writestr("tiny_bert/model/tokenizer.json", "{}")
        archive.writestr("tiny_bert-1.0.dist-info/licenses/LICENSE", "MIT")
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()


def forward(tensors: Tensors, ids: list[int]) -> npt.NDArray[np.float64]:
    """The sentence vector of one text, in float64."""
    w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    x = (
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(x, "embeddings.LayerNorm")
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        query, key, value = (dense(x, f"{layer}.attention.self.{name}").reshape(len(ids), 3, 8).swapaxes(0, 1) for name in ("query", "key", "value"))
        scores = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(8))
        mixed = (scores / scores.sum(-1, keepdims=True) @ value).swapaxes(0, 1).reshape(len(ids), 24)
        x = norm(dense(mixed, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")
        x = norm(dense(gelu(dense(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)
