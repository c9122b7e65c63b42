"""``appliance guard``: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.cli.guard import app
from appliance.kit.errors import ApplianceError

FILE = 'schema_version = 1\n[spaces.hr]\npii = "block"\n[spaces.legal]\npii = "mask"\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path))
    (tmp_path / "guardrails.toml").write_text(FILE, encoding="utf-8")
    return tmp_path


def test_check_says_what_it_finds_and_what_becomes_of_the_text() -> None:
    result = CliRunner().invoke(app, ["check", "--space", "legal", "--json"], input="ИНН 7707083893")
    told = json.loads(result.stdout)
    assert told["text"] == "ИНН ██████"
    assert told["findings"] == [{"policy": "pii", "kind": "inn", "action": "mask", "count": 1}]
    assert told["blocked"] is False


def test_a_blocked_text_has_an_exit_status_of_its_own_and_is_not_shown() -> None:
    result = CliRunner().invoke(app, ["check", "--space", "hr", "--json"], input="ИНН 7707083893")
    assert isinstance(result.exception, ApplianceError)
    assert result.exception.code == "content_blocked"
    assert "7707083893" not in result.stdout


def test_policies_are_those_of_the_strictest_space() -> None:
    result = CliRunner().invoke(app, ["policies", "--space", "hr", "--space", "legal", "--json"])
    rows = {row["policy"]: row for row in json.loads(result.stdout)["data"]}
    assert rows["pii"]["output"] == "block"
    assert rows["link"] == {"policy": "link", "input": "-", "passage": "-", "output": "mask", "tool": "-"}


def test_a_wrong_file_names_the_key(home: Path) -> None:
    (home / "guardrails.toml").write_text('schema_version = 1\n[default]\npii = "hide"', encoding="utf-8")
    result = CliRunner().invoke(app, ["policies"])
    assert isinstance(result.exception, ApplianceError)
    assert "default.pii" in result.exception.message


def test_a_missing_file_and_an_unknown_direction_are_told() -> None:
    for arguments in (["check", "/nowhere/x.txt"], ["check", "--where", "output"]):
        result = CliRunner().invoke(app, arguments, input="x")
        assert isinstance(result.exception, ApplianceError)
        assert result.exception.code == "invalid_request"
