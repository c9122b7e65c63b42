"""OpenTelemetry spans along a request. Off unless an OTLP endpoint is configured: nothing is exported, nothing waits.

Owns: the tracer and its set-up, the id of a trace, what an exception leaves on a span. Callers never ask whether tracing is on: while it is off a span is
one shared object and costs less than a microsecond (the API's own no-op tracer costs ten). Does not own: the way out (``otlp_exporter``), names of attributes
(``span_attributes``).

Invariants: the provider is ours alone, libraries in this process do not reach it; a span carries codes and classes of errors, never their words, and no text of
people or models unless :func:`exports_content`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, Tracer, TracerProvider

from appliance.kit.errors import ApplianceError
from appliance.kit.logging import correlation_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]
_OFF: Final[AbstractContextManager[Span]] = nullcontext(trace.INVALID_SPAN)
_QUEUE: Final = 2048
_BATCH: Final = 256
_MOST_TEXT: Final = 32_768
_MOST_HEADERS_BYTES: Final = 16_384
_SHUTDOWN_SECONDS: Final = 3.0
_PARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_tracer: Tracer | None = None
_content = False


def configure_telemetry(endpoint: str | None, *, service: str, headers_file: Path | None = None, content: bool = False) -> Callable[[], None]:
    """Export spans over OTLP/HTTP to ``endpoint`` (inside the site); None leaves tracing off. Returns what ends it, in three seconds at most.

    Export is batched in a background thread with a bounded queue; a dead collector costs dropped spans, never latency.

    Args:
        endpoint: ``http://host:4318``, or Langfuse's ``http://host:3000/api/public/otel``.
        service: name in traces.
        headers_file: see :func:`read_headers`.
        content: whether questions and answers go along.

    Raises:
        ApplianceError: ``settings_invalid``.
    """
    if endpoint is None:
        return _nothing
    headers = read_headers(headers_file) if headers_file is not None else {}
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from appliance.kit.otlp_exporter import OtlpHttpExporter

    processor = BatchSpanProcessor(
        OtlpHttpExporter(endpoint, headers), max_queue_size=_QUEUE, max_export_batch_size=_BATCH, schedule_delay_millis=2000
    )
    provider = make_provider(service)
    provider.add_span_processor(processor)
    enable_spans(provider, content=content)

    def end() -> None:
        disable_spans()
        processor._batch_processor.shutdown(int(_SHUTDOWN_SECONDS * 1000))  # noqa: SLF001 - the public method waits for 30 s

    return end


def make_provider(service: str) -> SdkProvider:
    """A provider whose trace ids follow the request ids of the box; without an exporter yet."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class RequestIds(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            request = correlation_id.get()
            return int(trace_id_of(request), 16) if request else super().generate_trace_id()

    limits = SpanLimits(max_span_attribute_length=_MOST_TEXT, max_span_attributes=64, max_events=0, max_links=0)
    return SdkProvider(resource=Resource({"service.name": service}), id_generator=RequestIds(), span_limits=limits, shutdown_on_exit=False)


def trace_id_of(request_id: str) -> str:
    """The trace of a request: 32 hexadecimal digits from the request id that logs, audit and ``x-request-id`` name (SHA-256, its beginning)."""
    return hashlib.sha256(request_id.encode()).hexdigest()[:32]


def enable_spans(provider: TracerProvider, *, content: bool = False) -> None:
    """Record spans with ``provider`` from now on."""
    global _tracer, _content
    _tracer, _content = provider.get_tracer("appliance"), content


def disable_spans() -> None:
    """Record none from now on."""
    global _tracer, _content
    _tracer, _content = None, False


def exports_content() -> bool:
    """Whether questions and answers may be put on spans."""
    return _content


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """A span named ``name`` around a block; the code of an exception is left on it."""
    if _tracer is None:
        return _OFF
    return _Recorded(_tracer, name, attributes, None)


def request_span(name: str, traceparent: bytes | None, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """The first span of a request: in the caller's trace (W3C ``traceparent``) when it is in one, else in that of the request id."""
    if _tracer is None:
        return _OFF
    found = _PARENT.fullmatch(traceparent) if traceparent else None
    parent = contexts.Context()
    if found is not None and int(found[1], 16) and int(found[2], 16):
        caller = SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=TraceFlags(int(found[3], 16) & 1))
        parent = trace.set_span_in_context(NonRecordingSpan(caller), parent)
    return _Recorded(_tracer, name, attributes, parent)


class _Recorded:
    """The SDK's own context manager writes messages and stack traces of exceptions, which may quote people."""

    __slots__ = ("_span", "_token")

    def __init__(self, tracer: Tracer, name: str, attributes: Attributes | None, parent: contexts.Context | None) -> None:
        self._span = tracer.start_span(name, parent, attributes=attributes)

    def __enter__(self) -> Span:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if error is not None:
            code = error.code if isinstance(error, ApplianceError) else type(error).__name__
            if not isinstance(error, Exception):
                code = "cancelled"
            self._span.set_attribute("error.type", code)
            if isinstance(error, Exception):
                self._span.set_status(Status(StatusCode.ERROR, code))
        contexts.detach(self._token)
        self._span.end()


def read_headers(file: Path) -> dict[str, str]:
    """Headers from a file: ``name: value`` a line, ``#`` comments; ``basic: user:password`` becomes the authorization that Langfuse takes (public:secret key).

    Raises:
        ApplianceError: ``settings_invalid``; the message quotes nothing of the file.
    """
    hint = "lines such as `authorization: Bearer …`, or `basic: pk-lf-…:sk-lf-…` for Langfuse"
    try:
        with file.open("rb") as data:
            lines = data.read(_MOST_HEADERS_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ApplianceError("settings_invalid", f"the file of OTLP headers cannot be read: {type(exc).__name__}", hint=hint) from exc
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, _, value = (part.strip() for part in line.partition(":"))
        if not name or name.startswith("#"):
            continue
        if not value or not _HEADER.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ApplianceError("settings_invalid", f"line {number} of the file of OTLP headers is no header", hint=hint)
        if name.lower() == "basic":
            name, value = "authorization", "Basic " + base64.b64encode(value.encode()).decode()
        headers[name.lower()] = value
    return headers


def _nothing() -> None:
    """Tracing was never on."""
