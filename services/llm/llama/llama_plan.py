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


def plan_of(spec: ModelSpec, model: Path, size_bytes: int, facts: GgufFacts) -> LlamaPlan:
    """The plan for ``model``, which is ``size_bytes`` long in all its parts."""
    trained = facts.max_context or spec.max_context or DEFAULT_CONTEXT
    context = spec.max_context or min(DEFAULT_CONTEXT, trained)
    cache_bytes = facts.cache_bytes_per_token * context * spec.parallel
    # the weights twice: mapped from the file, and once more where the CPU wants them in another order
    derived = 2 * size_bytes + cache_bytes + cache_bytes // 4 + _BASE_BYTES
    limit = spec.memory_limit_mb * _MEBIBYTE or derived
    return LlamaPlan(
        model=str(model), context=context, parallel=spec.parallel, threads=spec.threads or len(os.sched_getaffinity(0)), gpu_layers=spec.gpu_layers,
        limit_bytes=0 if spec.gpu_layers else limit, needed_bytes=size_bytes + cache_bytes,
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


def check_memory(plan: LlamaPlan, alias: str, available_bytes: int) -> None:
    """Refuse what cannot run here, before the machine is driven into its swap.

    Raises:
        ApplianceError: ``unavailable`` naming what is needed and what there is.
    """
    hint = "set a smaller max_context or parallel in models.toml, or take a smaller quantisation"
    if plan.limit_bytes and plan.needed_bytes > plan.limit_bytes:
        raise _too_large(alias, plan.needed_bytes, f"its memory_limit_mb allows {plan.limit_bytes // _MEBIBYTE} MiB", hint)
    if not plan.gpu_layers and plan.needed_bytes > available_bytes:
        raise _too_large(alias, plan.needed_bytes, f"the machine has {available_bytes // _MEBIBYTE} MiB free", hint)


def available_memory() -> int:
    """Bytes that a new process may fill without pushing another out (``MemAvailable``)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**63


def _too_large(alias: str, needed: int, reason: str, hint: str) -> ApplianceError:
    return ApplianceError("unavailable", f"model {alias!r} needs {-(-needed // _MEBIBYTE)} MiB, and {reason}", hint=hint)
