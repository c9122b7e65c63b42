"""Prometheus metrics of the chat path (names from OBS-2)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

llm_requests: Final = Counter("llm_requests_total", "Chat model calls", ["model", "outcome"])
llm_seconds: Final = Histogram(
    "llm_request_duration_seconds", "Chat model call, first request byte to last token", ["model"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 20, 60, 300),
)  # fmt: skip
first_token_seconds: Final = Histogram(
    "chat_first_token_seconds", "Chat turn, from the question to the first token", ["model"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 20),
)  # fmt: skip
invented_citations: Final = Counter("citations_invented_total", "Citation marks removed because they pointed nowhere", ["model"])
citations: Final = Counter("citations_total", "Citations shown", ["model"])
tokens: Final = Counter("llm_tokens_total", "Tokens by direction", ["model", "direction"])
refusals: Final = Counter("chat_refusals_total", "Answers that say the documents do not contain it", ["model"])
