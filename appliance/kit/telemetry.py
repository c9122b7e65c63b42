"""OpenTelemetry spans along a request. Off unless an OTLP endpoint is configured: nothing is exported, nothing waits.

Owns: the tracer and its set-up. Callers never ask whether tracing is on: while it is off a span is one shared object and costs a
microsecond (the API's own no-op tracer costs ten).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, TracerProvider

from appliance.kit.errors import ApplianceError

_tracer = trace.get_tracer("appliance")
_is_on = False
_OFF: Final = nullcontext(trace.INVALID_SPAN)


def configure_telemetry(otlp_endpoint: str | None, *, service: str) -> None:
    """Export spans over OTLP/HTTP to ``otlp_endpoint`` (inside the site); None leaves tracing off.

    Export is batched in a background thread with a bounded queue; a dead collector costs dropped spans, never latency.
    """
    if otlp_endpoint is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as exc:
        raise ApplianceError("settings_invalid", "the OTLP exporter is not installed", hint="install the 'otlp' extra or unset the endpoint") from exc
    provider = SdkProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, timeout=2), max_queue_size=2048))
    enable_spans(provider)


def enable_spans(provider: TracerProvider) -> None:
    """Record spans with ``provider`` from now on; for the life of the process."""
    global _is_on  # noqa: PLW0603 - like OpenTelemetry's own provider, one for the process
    trace.set_tracer_provider(provider)
    _is_on = True


def span(name: str, attributes: Mapping[str, str | int | float | bool] | None = None) -> AbstractContextManager[Span]:
    """A span named ``name`` around a block; exceptions are recorded on it by OpenTelemetry."""
    if not _is_on:
        return _OFF
    return _tracer.start_as_current_span(name, attributes=dict(attributes) if attributes else None)
