"""Sessions of ONNX Runtime as all our CPU models want them: one thread of computation a run, many runs side by side, no memory kept between them.

Memory arena and pattern are off: they keep the memory of the largest batch for ever (figures: docs/adr/0003-encoder-runtime.md).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

from appliance.kit.offline import seal_onnxruntime


def open_session(model: bytes) -> Any:
    """An ``InferenceSession`` on the CPU over the bytes of a model; raises what the runtime raises for bytes that it cannot read."""
    import onnxruntime

    seal_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session._model_bytes = None  # noqa: SLF001 - kept by the binding for a fallback to other providers that we do not have: 90 MB
    _return_free_memory()
    return session


def _return_free_memory() -> None:
    """Hand what loading freed back to the system: 20 MB (glibc only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
