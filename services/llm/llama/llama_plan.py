"""What a GGUF needs to run here: file, context, threads, memory limit. Pure, from the entry in models.toml and the header of the file.

Owns the arithmetic of memory. Does not own: the process that is given this plan (``llama_process``), the trust in the file (``llama_engine``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.hub.gguf_header import GgufFacts
from appliance.hub.model_spec import ModelSpec
from appliance.kit.errors import ApplianceError

DEFAULT_CONTEXT: Final = 4096
"""Tokens for a model whose entry says nothing, or less when it was trained for less: long contexts cost memory that nobody asked for."""
_MEBIBYTE: Final = 1024 * 1024
_BASE_BYTES: Final = 1024 * _MEBIBYTE
"""Address space of interpreter, library, thread stacks and compute buffers; 450 MiB are used by a tiny model."""
_LEAST_BYTES: Final = 200 * _MEBIBYTE
"""Memory beside weights and cache that is really filled."""
_LEAST_CACHE_BYTES: Final = 1024 * _MEBIBYTE
LEAST_CONTEXT: Final = 2048
_CONTEXT_STEP: Final = 256
_PART: Final = re.compile(r"-(\d{5})-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LlamaPlan:
    """Parameters of the child.

    Attributes:
        model: the file to load; the first one of a model in several files.
        context: tokens of prompt and answer together, of each request.
        parallel: requests at once.
        threads: CPU threads.
        gpu_layers: layers on a GPU; 0 = none.
        limit_bytes: of its address space; 0 = none (a GPU's driver reserves address space without using it).
        needed_bytes: memory that it will fill: weights and key-value cache.
    """

    model: str
    context: int
    parallel: int
    threads: int
    gpu_layers: int
    limit_bytes: int
    needed_bytes: int


def plan_of(spec: ModelSpec, model: Path, size_bytes: int, facts: GgufFacts, available_bytes: int) -> LlamaPlan:
    """The plan for ``model``, which is ``size_bytes`` long in all its parts, on a machine with ``available_bytes`` of free memory.

    The context is the one of the entry, or less: the key-value cache gets what ``memory_limit_mb`` leaves, and without one as much as the weights have, at
    least 1 GiB. An import writes down what a model was trained for, and 128 Ki tokens for four requests at once are 64 GiB for a model of 5 GiB.

    Raises:
        ApplianceError: ``unavailable`` when not even a short context fits, naming what is needed and what there is.
    """
    wanted = spec.max_context or min(DEFAULT_CONTEXT, facts.max_context or DEFAULT_CONTEXT)
    limit = spec.memory_limit_mb * _MEBIBYTE
    room = limit - size_bytes - _LEAST_BYTES if limit else max(size_bytes, _LEAST_CACHE_BYTES)
    if not spec.gpu_layers:
        room = min(room, available_bytes - size_bytes - _LEAST_BYTES)
    per_token = facts.cache_bytes_per_token * spec.parallel
    fits = room // per_token // _CONTEXT_STEP * _CONTEXT_STEP if per_token else wanted
    context = min(wanted, fits)
    if room < 0 or context < min(wanted, LEAST_CONTEXT):
        needed = size_bytes + _LEAST_BYTES + per_token * min(wanted, LEAST_CONTEXT)
        raise _too_large(spec, needed, available_bytes)
    cache_bytes = per_token * context
    # the weights twice: mapped from the file, and once more where the CPU wants them in another order
    derived = 2 * size_bytes + cache_bytes + cache_bytes // 4 + _BASE_BYTES
    return LlamaPlan(
        model=str(model), context=context, parallel=spec.parallel, threads=spec.threads or len(os.sched_getaffinity(0)), gpu_layers=spec.gpu_layers,
        limit_bytes=0 if spec.gpu_layers else limit or derived, needed_bytes=size_bytes + cache_bytes,
    )  # fmt: skip


def gguf_file(names: Iterable[str], label: str) -> str:
    """The file of a snapshot that the engine is given.

    Raises:
        ApplianceError: ``model_refused`` when there is not exactly one model in it.
    """
    found = sorted(name for name in names if name.lower().endswith(".gguf") and "mmproj" not in name.lower())
    first = [name for name in found if (part := _PART.search(name)) is None or int(part[1]) == 1]
    if len(first) != 1:
        raise ApplianceError(
            "model_refused", f"{label} holds {len(first)} GGUF models", hint="import each model by itself: appliance models import FILE"
        )
    return first[0]


def available_memory() -> int:
    """Bytes that a new process may fill without pushing another out (``MemAvailable``)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**63


def _too_large(spec: ModelSpec, needed: int, available: int) -> ApplianceError:
    mebibytes = -(-needed // _MEBIBYTE)
    limited = 0 < spec.memory_limit_mb < mebibytes
    reason = f"its memory_limit_mb allows {spec.memory_limit_mb} MiB" if limited else f"the machine has {available // _MEBIBYTE} MiB free"
    hint = "set a smaller max_context or parallel in models.toml, or take a smaller quantisation"
    return ApplianceError("unavailable", f"model {spec.alias!r} needs at least {mebibytes} MiB, and {reason}", hint=hint)
