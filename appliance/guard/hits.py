"""What a detector says: where, and what kind of thing. Never the thing itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Hit(NamedTuple):
    """A span of the source text.

    Attributes:
        start, end: character offsets.
        policy: ``pii``, ``secret`` or ``injection``.
        kind: ``inn``, ``jwt``, ``override_instructions`` …
        weight: how sure, 0..1; 1 where a checksum or a fixed form says so.
    """

    start: int
    end: int
    policy: str
    kind: str
    weight: float = 1.0


def without_overlaps(hits: Iterable[Hit]) -> list[Hit]:
    """In order of place; of two that overlap the longer stays."""
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end)):
        if kept and hit.start < kept[-1].end:
            if hit.end - hit.start > kept[-1].end - kept[-1].start:
                kept[-1] = hit
            continue
        kept.append(hit)
    return kept
