"""Prometheus metrics of tool calls."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

calls: Final = Counter("tool_calls_total", "Tool calls by outcome (ok, cached, or an error code)", ["tool", "outcome"])
seconds: Final = Histogram(
    "tool_call_duration_seconds", "Tool call, from the model's wish to the recorded outcome", ["tool"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120),
)  # fmt: skip
foreseen: Final = Counter("tool_calls_foreseen_total", "Speculative calls (begun, used)", ["event"])
