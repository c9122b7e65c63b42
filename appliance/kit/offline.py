"""Seals the process: switches that keep model libraries from reaching out. Called once at process start, before any such library is imported.

Owns the list of switches. The product itself opens no outgoing connection that is not configured; this binds the libraries it uses.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

SWITCHES: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # read by later ONNX Runtime builds; the call in seal_onnxruntime is what binds today's
    "TOKENIZERS_PARALLELISM": "false",  # our own threads tokenise; a second pool under them only competes
}


def seal_environment(home: Path) -> None:
    """Set the switches and point caches into the box: ``HF_HOME`` and ``MODEL_DIR`` are ``home/models``. Values already set are overwritten.

    Also turns telemetry off in an ONNX Runtime that was imported before; the encoder calls :func:`seal_onnxruntime` for one that comes later.
    """
    models = str(home.absolute() / "models")
    os.environ.update(SWITCHES, HF_HOME=models, MODEL_DIR=models)
    if "onnxruntime" in sys.modules:
        seal_onnxruntime()


def seal_onnxruntime() -> None:
    """Telemetry events off (only Windows builds have any), and no log below error."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(3)
