"""Spans as OTLP/HTTP in JSON, to a collector inside the site (an OpenTelemetry collector, Langfuse). Runs in the thread of the batch processor.

Owns: the wire form, the time that one attempt may take, rest after failures. Does not own: the queue (the SDK's, bounded), which spans there are.

Invariants: an attempt takes at most ``timeout_seconds``, whatever the collector does; after a failure it is left alone for 5 s, then 10 … 60 s, and spans of
that time are dropped; at most 4 KB of an answer are read. Nothing here raises into the processor, and nothing waits for it.
"""

from __future__ import annotations

import http.client
import math
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN_CONTEXT, StatusCode
from prometheus_client import Counter

from appliance.kit.logging import get_logger

TRACES_PATH: Final = "/v1/traces"
_FIRST_REST_SECONDS: Final = 5.0
_MOST_REST_SECONDS: Final = 60.0
_READ_BYTES: Final = 4096
_STATUS: Final = {StatusCode.UNSET: 0, StatusCode.OK: 1, StatusCode.ERROR: 2}
_SAFE_INTEGER: Final = 2**63
_log = get_logger(__name__)
spans_total: Final = Counter("otlp_spans_total", "Spans for the collector: sent, or dropped because it was not there", ["outcome"])


class OtlpHttpExporter(SpanExporter):
    """See the module.

    Args:
        endpoint: of the collector; ``/v1/traces`` is put behind it unless it ends so.
        headers: more of the request, such as ``authorization``.
        timeout_seconds: of one attempt as a whole.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str] | None = None, *, timeout_seconds: float = 2.0) -> None:
        parts = urlsplit(endpoint)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        path = parts.path.rstrip("/")
        self._path = path if path.endswith(TRACES_PATH) else path + TRACES_PATH
        self._headers = {**(headers or {}), "content-type": "application/json", "connection": "close"}
        self._timeout = timeout_seconds
        self._rest = 0.0
        self._until = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch, or drop it."""
        if time.monotonic() < self._until:
            spans_total.labels("dropped").inc(len(spans))
            return SpanExportResult.FAILURE
        try:
            problem = self._sent(msgspec.json.encode(document(spans)))
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"[:200]
        spans_total.labels("dropped" if problem else "sent").inc(len(spans))
        if problem:
            if not self._rest:
                _log.warning("collector_failed", problem=problem, host=self._host)
            self._rest = min(self._rest * 2 or _FIRST_REST_SECONDS, _MOST_REST_SECONDS)
            self._until = time.monotonic() + self._rest
            return SpanExportResult.FAILURE
        if self._rest:
            _log.info("collector_works_again", host=self._host)
            self._rest = 0.0
        return SpanExportResult.SUCCESS

    def _sent(self, body: bytes) -> str:
        """What is wrong; "" = it was taken."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        too_long = threading.Event()  # set before the line is cut: who wakes up must find it
        watch = threading.Timer(self._timeout, _cut, (connection, too_long))  # the timeout of a socket begins again with every byte
        watch.daemon = True
        watch.start()
        try:
            connection.request("POST", self._path, body, self._headers)
            answer = connection.getresponse()
            answer.read(_READ_BYTES)
            if too_long.is_set():
                return "it took too long"  # cut off, headers look as if they had ended
            return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"
        finally:
            watch.cancel()
            connection.close()

    def shutdown(self) -> None:
        """Send no more."""
        self._until = math.inf


def _cut(connection: http.client.HTTPConnection, too_long: threading.Event) -> None:
    too_long.set()
    if (line := connection.sock) is not None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)


def document(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """An ``ExportTraceServiceRequest`` (opentelemetry-proto 1.x, JSON encoding: ids in hex, 64-bit integers as strings); all spans of one resource."""
    resource = spans[0].resource.attributes if spans else {}
    scope = {"scope": {"name": "appliance"}, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context() or INVALID_SPAN_CONTEXT
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        **({"parentSpanId": f"{span.parent.span_id:016x}"} if span.parent is not None else {}),
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _attributes(span.attributes or {}),
        "status": {"code": _STATUS[span.status.status_code], **({"message": span.status.description} if span.status.description else {})},
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and abs(value) < _SAFE_INTEGER:
        return {"intValue": str(value)}
    if isinstance(value, float) and math.isfinite(value):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value).encode("utf-8", "replace").decode()}
