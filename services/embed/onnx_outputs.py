"""What an ONNX encoder gives, made into unit vectors: sentence vectors as they are, token states pooled as the model's own files say.

Exports of the usual tools end with the states of the last layer; the pooling then stands in ``1_Pooling/config.json`` of sentence-transformers (absent:
mean over the tokens that are there, as most have). Models that `make setup` converts have it in the graph.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from appliance.contracts.embed.v1.api import Vectors
from appliance.hub.snapshots import Snapshot, read_verified

Pooling = Literal["mean", "first"]
POOLING_FILE: Final = "1_Pooling/config.json"
INPUTS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_TINY: Final = np.float32(1e-9)


def pooling_of(snapshot: Snapshot) -> Pooling:
    """``first`` (token) or ``mean``; ``ValueError`` for a mode that is neither."""
    if POOLING_FILE not in snapshot.index.files:
        return "mean"
    config = json.loads(read_verified(snapshot, POOLING_FILE))
    modes = {name for name, wanted in config.items() if name.startswith("pooling_mode_") and wanted is True} if isinstance(config, dict) else set()
    if modes == {"pooling_mode_cls_token"}:
        return "first"
    if modes <= {"pooling_mode_mean_tokens"}:
        return "mean"
    raise ValueError(f"{POOLING_FILE} asks for {', '.join(sorted(modes))}; mean and cls_token are known")


def check_inputs(session: Any) -> list[str]:
    """Names of the inputs; ``ValueError`` for one that no text encoder has."""
    names = [given.name for given in session.get_inputs()]
    if unknown := set(names) - INPUTS:
        raise ValueError(f"it has the input {min(unknown)!r}, which no text encoder has")
    return names


def unit_vectors(output: Any, mask: npt.NDArray[np.int64], pooling: Pooling, dimensions: int) -> Vectors:
    """From (texts, dimensions) or (texts, tokens, dimensions); ``ValueError`` for anything else."""
    states = np.asarray(output, np.float32)
    if states.shape == (len(mask), dimensions):
        return states if _are_unit(states) else _normalised(states)
    if states.shape != (*mask.shape, dimensions):
        raise ValueError(f"its output has the shape {states.shape}, not one vector of {dimensions} for each text or token")
    if pooling == "first":
        return _normalised(states[:, 0])
    wide = mask[:, :, None].astype(np.float32)
    return _normalised((states * wide).sum(axis=1) / np.maximum(wide.sum(axis=1), _TINY))


def _are_unit(vectors: Vectors) -> bool:
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5))


def _normalised(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY), np.float32)
