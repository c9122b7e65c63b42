"""Spans go to a collector over OTLP/HTTP: one trace from the first byte of a request on; a collector that is gone, hangs or talks nonsense costs spans, no request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

from appliance.kit import otlp_exporter
from appliance.kit.otlp_exporter import OtlpHttpExporter
from appliance.kit.telemetry import configure_telemetry, disable_spans, make_provider, trace_id_of
from tests.integration.collector_bed import Collector, collecting
from tests.integration.gateway_bed import client_of, open_bed

ASK = {"model": "default", "messages": [{"role": "user", "content": "What does the paper say?"}]}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server
    disable_spans()


@contextmanager
def answering(say: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A server that takes connections and does ``say`` with them until the end."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not over.is_set():
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                line.settimeout(5)
                try:
                    line.recv(65536)
                    say(line, over)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        disable_spans()


def _hang(_line: socket.socket, over: threading.Event) -> None:
    over.wait(20)


def _drip(line: socket.socket, over: threading.Event) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.wait(0.02):
        line.sendall(b"x: y\r\n")


def _garbage(line: socket.socket, _over: threading.Event) -> None:
    line.sendall(b"\xff\x00 what?\r\n" * 100)


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


async def test_a_request_is_one_trace_in_the_collector(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "headers").write_text("basic: pk-lf-1:sk-lf-2\n")
    url = f"http://127.0.0.1:{collector.server_address[1]}/api/public/otel"
    end = configure_telemetry(url, service="appliance", headers_file=tmp_path / "headers")
    async with open_bed(tmp_path) as bed, client_of(bed) as client:
        added = await client.post("/api/documents?space=default", files={"file": ("a.txt", b"The paper says so.")})
        assert added.status_code < 300
        answer = await client.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "my-request"})
        assert answer.status_code == 200
        refused = await client.post("/v1/chat/completions", json={**ASK, "model": "nobody"}, headers={"x-request-id": "other"})
        assert refused.status_code == 404
        await client.get("/healthz")
    end()
    assert collector.paths[0] == "/api/public/otel/v1/traces"
    assert collector.headers[0]["authorization"].startswith("Basic ")
    resource = collector.bodies[0]["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "appliance"}} in resource
    mine = {span["name"]: span for span in collector.spans() if span["traceId"] == trace_id_of("my-request")}
    assert set(mine) == {"gateway.request", "chat.turn", "chat.retrieve", "llm.generate"}
    assert "parentSpanId" not in mine["gateway.request"]
    assert mine["chat.turn"]["parentSpanId"] == mine["gateway.request"]["spanId"]
    assert mine["llm.generate"]["parentSpanId"] == mine["chat.retrieve"]["parentSpanId"] == mine["chat.turn"]["spanId"]
    assert all(int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) for span in mine.values())
    facts = attributes(mine["llm.generate"])
    assert facts["gen_ai.request.model"] == "default"
    assert int(facts["gen_ai.usage.output_tokens"]) == answer.json()["usage"]["completion_tokens"] > 0
    assert facts["appliance.sources"] == {"values": [{"stringValue": "d_1"}]}
    assert attributes(mine["gateway.request"])["http.route"] == "/v1/chat/completions"
    (other,) = (span for span in collector.spans() if span["traceId"] == trace_id_of("other"))
    assert other["status"] == {"code": 2, "message": "model_not_found"}
    assert {span["name"] for span in collector.spans() if "parentSpanId" not in span} == {"gateway.request"}  # health was not traced
    assert "What does the paper say" not in json.dumps(collector.bodies)
    assert "paper says so" not in json.dumps(collector.bodies)


@pytest.mark.parametrize("way", ["gone", "hangs"])
async def test_a_collector_that_is_gone_or_hangs_costs_no_request_and_no_end(tmp_path: Path, way: str) -> None:
    with answering(_hang) as port:
        end = configure_telemetry(f"http://127.0.0.1:{dead_port() if way == 'gone' else port}", service="appliance")
        dropped = otlp_exporter.spans_total.labels("dropped")
        before = dropped._value.get()
        async with open_bed(tmp_path) as bed, client_of(bed) as client:
            for _ in range(30):
                answer = await client.post("/v1/chat/completions", json=ASK)
                assert answer.status_code == 200
        begun = time.monotonic()
        end()
        assert time.monotonic() - begun < 10  # three seconds are allowed
        assert dropped._value.get() > before


def test_an_attempt_ends_in_time_whatever_the_collector_does() -> None:
    span = make_provider("test").get_tracer("t").start_span("s")
    span.end()
    for way, least in ((_hang, 0.25), (_drip, 0.25), (_garbage, 0.0)):
        with answering(way) as port:
            exporter = OtlpHttpExporter(f"http://127.0.0.1:{port}", timeout_seconds=0.3)
            begun = time.monotonic()
            assert exporter.export([span]) is SpanExportResult.FAILURE
            assert least < time.monotonic() - begun < 10
            begun = time.monotonic()
            assert exporter.export([span]) is SpanExportResult.FAILURE  # left alone now
            assert time.monotonic() - begun < 0.25


def test_a_collector_that_refuses_is_left_alone_and_taken_back(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_exporter, "_FIRST_REST_SECONDS", 0.01)
    monkeypatch.setattr(otlp_exporter, "_MOST_REST_SECONDS", 0.01)
    span = make_provider("test").get_tracer("t").start_span("s", attributes={"f": 1.5, "b": True, "n": 7, "l": ["a", "b"], "s": "\ud800"})
    span.end()
    exporter = OtlpHttpExporter(f"http://127.0.0.1:{collector.server_address[1]}/v1/traces")
    collector.status = 401
    assert exporter.export([span]) is SpanExportResult.FAILURE
    collector.status = 202
    until = time.monotonic() + 10
    while exporter.export([span]) is not SpanExportResult.SUCCESS:
        assert time.monotonic() < until
    assert set(collector.paths) == {"/v1/traces"}
    assert [next(iter(one["value"])) for one in collector.spans()[-1]["attributes"]][:4] == ["doubleValue", "boolValue", "intValue", "arrayValue"]
    exporter.shutdown()
    assert exporter.export([span]) is SpanExportResult.FAILURE
