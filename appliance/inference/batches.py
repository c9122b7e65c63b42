"""How texts are cut into batches. Pure.

A run of ONNX Runtime on one core takes 0.12 ms a token (fp32 MiniLM, quiet machine) and as much as eleven tokens besides, whatever is in it: a text that is
padded by more than that does better alone. Cut at :data:`BATCH_TOKENS` a batch takes about 30 ms, which bounds what a waiting query can meet. Larger
batches measured no faster: at 200 tokens one text a run is within 5 % of the best, at 25 tokens ten texts are (docs/adr/0039).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BATCH_TOKENS: Final = 256
BATCH_TEXTS: Final = 16
PADDING_TOKENS: Final = 12


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one run may hold.

    Attributes:
        tokens: of the whole batch, padding included; a longer text runs alone.
        texts: rows.
        padding: tokens that one text may be padded with.
    """

    tokens: int = BATCH_TOKENS
    texts: int = BATCH_TEXTS
    padding: int = PADDING_TOKENS


CPU_LIMITS: Final = BatchLimits()
GPU_LIMITS: Final = BatchLimits(tokens=16_384, texts=128, padding=64)
"""A device that is not full with one text: many rows a run; unproved default, `make bench-gpu` measures."""


def plan_batches(lengths: Sequence[int], limits: BatchLimits = CPU_LIMITS) -> list[list[int]]:
    """Indexes into ``lengths`` (tokens of each text), grouped with neighbours in length so that little is padding.

    Every index appears once; a batch keeps ``limits`` unless it is one text. Longest first.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        last = batches[-1] if batches else []
        width = lengths[last[0]] if last else 0  # the first is the longest
        fits = last and len(last) < limits.texts and (len(last) + 1) * width <= limits.tokens
        if fits and width - lengths[index] <= limits.padding:
            last.append(index)
        else:
            batches.append([index])
    return batches


def padded_tokens(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that running ``batches`` computes, padding included; ``sum(lengths)`` of them are of use."""
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
