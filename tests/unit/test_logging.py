"""Logs: one JSON object a line, a correlation id, no secrets, bounded on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from appliance.kit.logging import configure_logging, correlation_id, get_logger


@pytest.fixture
def lines(tmp_path: Path):
    before = logging.getLogger().handlers[:]
    configure_logging(folder=tmp_path, stderr=False)

    def read() -> list[dict]:
        for handler in logging.getLogger().handlers:
            handler.flush()
        return [json.loads(line) for line in (tmp_path / "box.jsonl").read_text().splitlines()]

    yield read
    for handler in logging.getLogger().handlers:
        handler.close()
    logging.getLogger().handlers[:] = before


def test_every_line_is_json_with_the_correlation_id(lines) -> None:
    token = correlation_id.set("req_1")
    get_logger("a").info("something_happened", document_id="d1", size_bytes=3)
    logging.getLogger("library").warning("plain %s", "message")
    correlation_id.reset(token)
    first, second = lines()
    assert (first["event"], first["correlation_id"], first["document_id"], first["level"]) == ("something_happened", "req_1", "d1", "info")
    assert second["event"] == "plain message"
    assert first["timestamp"].endswith("Z")


def test_secrets_are_masked_whatever_the_caller_passes(lines) -> None:
    get_logger("a").info("login", password="hunter2", api_key="sk-1", Authorization="Bearer x", refresh_token="r", completion_tokens=7)
    text = json.dumps(lines())
    assert "hunter2" not in text
    assert "sk-1" not in text
    assert "Bearer" not in text
    assert lines()[0]["completion_tokens"] == 7


def test_an_exception_stays_on_one_line(lines) -> None:
    try:
        raise ValueError("broken\nthing")
    except ValueError:
        get_logger("a").exception("failed")
    (line,) = lines()
    assert "ValueError" in line["exception"]


def test_files_rotate(lines) -> None:
    handler = next(one for one in logging.getLogger().handlers if isinstance(one, logging.handlers.RotatingFileHandler))
    assert handler.maxBytes == 100 * 1024 * 1024
    assert handler.backupCount == 7
