"""A signed hub with two encoders and a cross-encoder of a few kilobytes, random weights, as ONNX and as Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from appliance.hub.model_spec import Kind, ModelSpec
from appliance.hub.model_trust import ModelSigner, ModelTrust
from appliance.hub.onnx_bert import BertShape, convert_bert
from appliance.hub.snapshot_writing import write_snapshot
from appliance.testing.cross_encoder_onnx import INPUTS, convert_cross_encoder
from tests.unit import tiny_bert

SHAPE = BertShape(hidden=24, heads=3, layers=2, epsilon=1e-12, positions=32)
LETTERS = "abcdefghiklmnoprstuvwxy"


@dataclass(frozen=True)
class TinyHub:
    """``hub`` holds what ``specs`` name; ``trust`` is in the key that signed them."""

    hub: Path
    trust: ModelTrust
    specs: Mapping[str, ModelSpec]


def make_hub(folder: Path) -> TinyHub:
    """embed ``tiny`` and ``other``, rerank ``cross`` (one logit) and ``two`` (two logits), rerank ``encoder`` (no cross-encoder at all)."""
    signer = ModelSigner.generate()
    models_: dict[str, tuple[Kind, bytes]] = {
        "tiny": ("embed", convert_bert(tiny_bert.weights(), SHAPE, "fp32")),
        "other": ("embed", convert_bert(tiny_bert.weights(seed=9), SHAPE, "fp32")),
        "cross": ("rerank", convert_cross_encoder(_with_head(1), SHAPE)),
        "two": ("rerank", convert_cross_encoder(_with_head(2), SHAPE)),
        "encoder": ("rerank", convert_bert(tiny_bert.weights(), SHAPE, "fp32")),
    }
    specs = {alias: _snapshot(folder / "models", signer, kind, alias, model) for alias, (kind, model) in models_.items()}
    return TinyHub(folder / "models", ModelTrust.of(signer.public_key), specs)


def hf_snapshot(folder: Path, kind: Kind, signer: ModelSigner) -> ModelSpec:
    """The weights of ``tiny`` (embed) or ``cross`` (rerank) as sentence-transformers reads them."""
    tensors = _with_head(1) if kind == "rerank" else tiny_bert.weights()
    prefix = "bert." if kind == "rerank" else ""
    named = {(name if name.startswith("classifier") else prefix + name): tensor for name, tensor in tensors.items()}

    def fill(target: Path) -> None:
        (target / "model.safetensors").write_bytes(tiny_bert.to_safetensors(named))
        (target / "config.json").write_text(json.dumps(_config(kind)), encoding="utf-8")
        (target / "tokenizer.json").write_bytes(tokenizer_json())
        words = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 32,
            "model_input_names": list(INPUTS),
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
        }
        (target / "tokenizer_config.json").write_text(json.dumps({**words, "cls_token": "[CLS]", "sep_token": "[SEP]"}), encoding="utf-8")

    snapshot = write_snapshot(folder / "models", f"{kind}/hf-v1", {}, fill, signer=signer)
    dimensions = 24 if kind == "embed" else 0
    return ModelSpec(
        kind, "hf", "sentence-transformers", path=f"{kind}/hf-v1", format="hf", digest=snapshot.digest, max_context=32, dimensions=dimensions
    )


def tokenizer_json() -> bytes:
    """WordPiece over single letters; everything else is unknown."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return str(tokenizer.to_str()).encode()


def altered(hub: TinyHub, alias: str) -> None:
    """Turn one byte of the weights of ``alias``."""
    file = hub.hub / hub.specs[alias].path / "model.onnx"
    file.parent.chmod(0o755)
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)


def _snapshot(hub: Path, signer: ModelSigner, kind: Kind, alias: str, model: bytes) -> ModelSpec:
    path = f"{kind}/{alias}-v1"

    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(model)
        (folder / "tokenizer.json").write_bytes(tokenizer_json())

    snapshot = write_snapshot(hub, path, {}, fill, signer=signer)
    spec = ModelSpec(kind, alias, "onnx", path=path, format="onnx", digest=snapshot.digest, max_context=32, languages=("en",))
    return replace(spec, dimensions=24) if kind == "embed" else spec


def _with_head(classes: int, seed: int = 1) -> tiny_bert.Tensors:
    source = np.random.default_rng(seed + 100)
    shapes = {"pooler.dense.weight": (24, 24), "pooler.dense.bias": (24,), "classifier.weight": (classes, 24), "classifier.bias": (classes,)}
    return tiny_bert.weights(seed) | {name: source.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def _config(kind: Kind) -> dict[str, Any]:
    head = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {**tiny_bert.CONFIG, "intermediate_size": 96, "type_vocab_size": 2, **(head if kind == "rerank" else {"architectures": ["BertModel"]})}
