"""Prometheus metrics of retrieval."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

retrieval_seconds: Final = Histogram("retrieval_duration_seconds", "Search by stage", ["stage"], buckets=_SECONDS)
ingest_seconds: Final = Histogram(
    "ingest_duration_seconds", "Ingest of one document by stage", ["stage"], buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 20, 60, 300)
)
documents_total: Final = Counter("ingest_documents_total", "Documents by outcome", ["outcome"])
search_degraded_total: Final = Counter("retrieval_degraded_total", "Searches that went on without a leg", ["leg"])
