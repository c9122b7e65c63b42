"""``/api/usage`` and quotas over HTTP: one's own, everyone's for administrators, by any dimension, as JSON and CSV; and the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Self

import pytest
from typer.testing import CliRunner

from appliance.cli import usage as command
from appliance.contracts.llm.v1.api import Usage
from appliance.testing.fakes_chat_model import ScriptedAnswer
from services.gateway.quotas import Quotas
from tests.integration.gateway_bed import client_of, open_bed

TURN = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "retrieval": {"spaces": []}}
COUNTS = ("requests", "prompt_tokens", "completion_tokens")


async def test_own_accounts_and_everyones_by_any_dimension(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed, client_of(bed, bed.reader_key) as client, client_of(bed, bed.admin_key) as admin:
        bed.model.answer = ScriptedAnswer(usage=Usage(100, 20, 40))
        for body in ({}, {"stream": True}, {"thread_id": "new"}):
            assert (await client.post("/v1/chat/completions", json=TURN | body)).status_code == 200
        assert (await admin.post("/v1/chat/completions", json=TURN)).status_code == 200

        day = (await client.get("/api/usage")).json()
        (today,) = day["data"]
        assert today["day"] == today["key"] == day["until"]
        assert [today[name] for name in (*COUNTS, "cached_tokens", "cost")] == [3, 300, 60, 120, 0]
        threads = (await client.get("/api/usage", params={"by": "thread"})).json()["data"]
        assert sorted(row["requests"] for row in threads) == [1, 2]
        assert {row["key"] == "" for row in threads} == {True, False}
        assert [row["key"] for row in (await client.get("/api/usage?by=model")).json()["data"]] == ["default"]

        users = (await admin.get("/api/usage", params={"by": "user", "subject": "*"})).json()["data"]
        assert {row["key"]: row["requests"] for row in users} == {"user:rita": 3, "user:admin": 1}
        (rita,) = (await admin.get("/api/usage", params={"subject": "user:rita"})).json()["data"]
        assert rita["requests"] == 3
        for subject in ("*", "user:admin"):
            refused = await client.get("/api/usage", params={"subject": subject})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert (await client.get("/api/usage", params={"subject": "user:rita"})).status_code == 200

        table = await admin.get("/api/usage", params={"by": "user", "subject": "*", "format": "csv"})
        assert table.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(table.text)))
        assert [(row["user"], row["prompt_tokens"]) for row in rows] == [("user:rita", "300"), ("user:admin", "100")]

        assert (await client.get("/api/usage?since=2020-01-01&until=2020-12-31")).json()["data"] == []
        for bad in ("by=colour", "since=yesterday", "since=2026-13-01", "since=2026-01-02&until=2026-01-01", "format=xml", "days=0"):
            assert (await client.get(f"/api/usage?{bad}")).status_code == 400, bad


async def test_a_spent_quota_is_a_429_before_the_model_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "quotas.toml"
    file.write_text('schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = 100\n')
    async with open_bed(tmp_path, quotas=Quotas(file)) as bed, client_of(bed, bed.reader_key) as client:
        bed.model.answer = ScriptedAnswer(usage=Usage(100, 20))
        assert (await client.post("/v1/chat/completions", json=TURN)).status_code == 200
        for stream in (False, True):
            refused = await client.post("/v1/chat/completions", json=TURN | {"stream": stream})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
            assert 1 <= int(refused.headers["retry-after"]) <= 86_400
            assert refused.headers["x-quota-limit"] == "100 tokens/day"
        assert len(bed.model.requests) == 1


class _Box:
    """What ``appliance usage`` asks, and canned answers."""

    def __init__(self, roles: list[str]) -> None:
        self.roles = roles
        self.asked: dict[str, object] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def get(self, path: str, **asked: object) -> dict[str, object]:
        if path == "/api/me":
            return {"roles": self.roles}
        self.asked = asked
        row = dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "saved_tokens", "cache_hits", "tool_calls"), 1234)
        return {"by": asked["by"], "since": "2026-01-01", "until": "2026-01-31", "data": [{"key": "default", "cost": 0.5, **row}]}

    def bytes(self, path: str) -> bytes:
        self.asked = {"path": path}
        return b"model,requests\r\ndefault,1\r\n"


def test_the_command_line_asks_for_everyones_as_administrator_and_prints_three_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    app = typer.Typer()
    app.command()(command.usage)
    box = _Box(["admin"])
    monkeypatch.setattr(command, "box_client", lambda: box)
    shown = CliRunner().invoke(app, ["--by", "model"])
    assert shown.exit_code == 0, shown.output
    assert "1,234" in shown.output and "default" in shown.output
    assert box.asked["subject"] == "*"
    assert json.loads(CliRunner().invoke(app, ["--json", "--since", "2026-01-01"]).output)["data"][0]["cost"] == 0.5
    assert CliRunner().invoke(app, ["--csv", "--by", "model"]).output.startswith("model,requests")
    assert "format=csv" in str(box.asked["path"]) and "by=model" in str(box.asked["path"])
    box.roles = ["member"]
    assert CliRunner().invoke(app, []).exit_code == 0
    assert box.asked["subject"] is None
