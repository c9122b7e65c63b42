"""torch, where a node has it: which device and number type, and a plain word where it is missing. torch is never in the base installation."""

from __future__ import annotations

import importlib
from typing import Any

from appliance.kit.errors import ApplianceError


def require(module: str) -> Any:
    """The module; ``unavailable`` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        hint = "install the extra 'gpu' on the nodes that have one, or use the model's ONNX form (engine = \"onnx\")"
        raise ApplianceError("unavailable", f"{module} is not installed on this node", hint=hint) from exc


def require_sentence_transformers() -> Any:
    """The module, without progress bars in the log; ``unavailable`` where it is not installed."""
    module = require("sentence_transformers")
    require("transformers").utils.logging.disable_progress_bar()
    return module


def torch_device(wanted: str) -> str:
    """``wanted``, or ``cuda`` if there is one, else ``cpu``; ``unavailable`` for a device that is not there."""
    torch = require("torch")
    there = torch.cuda.is_available()
    if wanted.startswith("cuda") and not there:
        raise ApplianceError("unavailable", f"there is no device {wanted!r} on this node", hint="see nvidia-smi; or set the device to cpu")
    return wanted or ("cuda" if there else "cpu")


def torch_dtype(name: str) -> Any:
    """``float16``, ``bfloat16``, ``float32`` as torch has them; ``auto`` or empty = as the weights are."""
    return getattr(require("torch"), name) if name and name != "auto" else "auto"
