"""``python -m services.retrieval.probe_vector_index FOLDER DIMENSIONS``: read a whole vector index, in a process that may die of it.

The engine maps its files: what a power cut tore is a bus error on reading, which no code can catch. Exit status 0 = all of it can be read.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import qdrant_edge as qe

from services.retrieval.qdrant_vector_index import FIELDS, shard_config

_POINTS = 2_000


def read_all(folder: Path, dimensions: int) -> int:
    """Load, count, read every point with its vector, and compare each payload index with the points; returns the count."""
    shard = qe.EdgeShard.load(str(folder), shard_config(dimensions))
    count = shard.count(qe.CountRequest(exact=True))
    values: dict[str, set[str]] = {field: set() for field in FIELDS}
    after, read = None, 0
    while True:
        points, after = shard.scroll(qe.ScrollRequest(offset=after, limit=_POINTS, with_payload=True, with_vector=True))
        read += len(points)
        for point in points:
            payload = point.payload or {}
            for field in FIELDS:
                values[field].add(str(payload[field]))
        if after is None:
            break
    _compare("points", read, count)
    vector = [1.0] + [0.0] * (dimensions - 1)
    for field in FIELDS:
        among = qe.Filter(must=[qe.FieldCondition(key=field, match=qe.MatchAny(sorted(values[field])))])
        _compare(field, shard.count(qe.CountRequest(exact=True, filter=among)), count)
        shard.query(qe.QueryRequest(limit=1, query=qe.Query.Nearest(vector), filter=among, params=qe.SearchParams(exact=True)))
    shard.close()
    return int(count)


def _compare(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{what}: {found} of {expected} can be found")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(f"{read_all(Path(sys.argv[1]), int(sys.argv[2]))}\n")
