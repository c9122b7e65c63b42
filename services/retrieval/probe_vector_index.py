"""``python -m services.retrieval.probe_vector_index FOLDER DIMENSIONS``: read a whole vector index, in a process that may die of it.

The engine maps its files: what a power cut tore is a bus error on reading, which no code can catch. Exit status 0 = all of it can be read.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import qdrant_edge as qe

from services.retrieval.qdrant_vector_index import FIELDS, shard_config

_POINTS = 2_000


def read_all(folder: Path, dimensions: int) -> int:
    """Load, count, read every point with its vector, and search once through each payload index; returns the count."""
    shard = qe.EdgeShard.load(str(folder), shard_config(dimensions))
    count = shard.count(qe.CountRequest(exact=True))
    sample: Mapping[str, object] = {}
    after, read = None, 0
    while True:
        points, after = shard.scroll(qe.ScrollRequest(offset=after, limit=_POINTS, with_payload=True, with_vector=True))
        read += len(points)
        for point in points[:1]:
            sample = dict(point.payload or {})
        if after is None:
            break
    if read != count:
        raise ValueError(f"{read} of {count} points can be read")
    vector = [1.0] + [0.0] * (dimensions - 1)
    conditions = [qe.FieldCondition(key=field, match=qe.MatchAny([str(sample[field])])) for field in FIELDS if field in sample]
    for condition in (*conditions, None):
        found = None if condition is None else qe.Filter(must=[condition])
        shard.query(qe.QueryRequest(limit=1, query=qe.Query.Nearest(vector), filter=found, params=qe.SearchParams(exact=True)))
    shard.close()
    return int(count)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(f"{read_all(Path(sys.argv[1]), int(sys.argv[2]))}\n")
