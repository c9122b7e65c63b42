"""Merging the ranked lists of words and vectors by weighted reciprocal rank fusion. Never looks at text or scores.

A list whose model cannot read the question is left out by the caller: ranks forget how sure a list was. Constant from Cormack, Clarke and
Büttcher 2009, *Reciprocal Rank Fusion Outperforms Condorcet*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_K: Final = 60
TEXT_WEIGHT: Final = 1.0
DENSE_WEIGHT: Final = 1.0


def fuse(legs: Sequence[tuple[float, Sequence[int]]]) -> list[int]:
    """Row ids, best first; each leg is (weight, row ids best first). Ties go to the newer row."""
    scores: dict[int, float] = {}
    for weight, rows in legs:
        for rank, row in enumerate(dict.fromkeys(rows), 1):
            scores[row] = scores.get(row, 0.0) + weight / (_K + rank)
    return sorted(scores, key=lambda row: (-scores[row], -row))
