"""Prometheus metrics of the chat path (names from OBS-2)."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Meters:
    """The metrics of one model, looked up once: a label look-up takes a lock and microseconds, on every turn."""

    ok: Counter
    seconds: Histogram
    first_token: Histogram
    prompt_tokens: Counter
    completion_tokens: Counter
    citations: Counter
    invented: Counter
    refusals: Counter

    @classmethod
    def of(cls, alias: str) -> Meters:
        """Those of the model ``alias``."""
        return cls(
            llm_requests.labels(alias, "ok"), llm_seconds.labels(alias), first_token_seconds.labels(alias), tokens.labels(alias, "prompt"),
            tokens.labels(alias, "completion"), citations.labels(alias), invented_citations.labels(alias), refusals.labels(alias),
        )  # fmt: skip
