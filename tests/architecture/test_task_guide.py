"""The guide of durable tasks says what the code does: every setting, every status, every command; documents name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from appliance.contracts.orchestrator.v1.values import TaskStatus
from services.orchestrator.settings import OrchestratorSettings

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "tasks.md").read_text()


def test_the_table_of_settings_is_complete_and_invents_nothing() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", GUIDE.split("### Settings")[1], re.M)
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    unused = {"ALGORITHMIC_SLOTS", "FUNCTION_MODULES"}  # nothing reads them: executors have settings of their own
    assert named == {name.upper() for name in OrchestratorSettings.model_fields} - unused


def test_the_picture_shows_every_status() -> None:
    picture = GUIDE.split("## The life of a task")[1].split("```")[1]
    assert [status for status in TaskStatus if not re.search(rf"\b{status}\b", picture)] == []


def test_every_command_that_is_printed_exists() -> None:
    from appliance.cli.main import app

    nouns = get_command(app).commands  # type: ignore[attr-defined]
    printed = set(re.findall(r"appliance (tasks|approvals|executors|schedules) ([a-z]+)", GUIDE))
    assert printed
    assert [f"{noun} {verb}" for noun, verb in printed if verb not in nouns[noun].commands] == []


@pytest.mark.parametrize(
    "page", ["requirements.md", "tasks.md", "threat-model.md", *(f"adr/{one.name}" for one in sorted((ROOT / "docs/adr").glob("*.md")))]
)
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"`((?:tests|bench|smoke-tests)/[\w./*-]+)`", text))
    assert [name for name in named if not list(ROOT.glob(name))] == []
    for file, test in re.findall(r"`(tests/[\w/]+\.py)`\s+\(`(test_\w+)`", text):
        assert re.search(rf"def {test}\(", (ROOT / file).read_text()), f"{file}: {test}"
