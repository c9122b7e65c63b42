"""OpenTelemetry spans along a request. Off unless an OTLP endpoint is configured: nothing is exported, nothing waits.

Owns: the tracer and its set-up. The no-op tracer of the API costs about a microsecond a span, so callers never ask whether it is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span

from appliance.kit.errors import ApplianceError

_tracer = trace.get_tracer("appliance")


def configure_telemetry(otlp_endpoint: str | None, *, service: str) -> None:
    """Export spans over OTLP/HTTP to ``otlp_endpoint`` (inside the site); None leaves tracing off.

    Export is batched in a background thread with a bounded queue; a dead collector costs dropped spans, never latency.
    """
    if otlp_endpoint is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as exc:
        raise ApplianceError("settings_invalid", "the OTLP exporter is not installed", hint="install the 'otlp' extra or unset the endpoint") from exc
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, timeout=2), max_queue_size=2048))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, attributes: Mapping[str, str | int | float | bool] | None = None) -> Iterator[Span]:
    """A span named ``name`` around a block; exceptions are recorded on it by OpenTelemetry."""
    with _tracer.start_as_current_span(name, attributes=dict(attributes) if attributes else None) as current:
        yield current
