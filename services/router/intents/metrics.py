"""Prometheus metrics of routing."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

decisions: Final = Counter("intent_decisions_total", "Routing decisions", ["source", "level"])
cache_hits: Final = Counter("intent_cache_hits_total", "Decisions taken from the cache")
cache_misses: Final = Counter("intent_cache_misses_total", "Decisions that had to be made")
out_of_scope: Final = Counter("intent_out_of_scope_total", "Questions that belong to none of the routes")
embeddings: Final = Counter("intent_embeddings_total", "Vectors asked for by decisions that words alone did not settle", ["outcome"])
seconds: Final = Histogram(
    "intent_decision_duration_seconds", "Time of a decision that was not cached",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)  # fmt: skip
