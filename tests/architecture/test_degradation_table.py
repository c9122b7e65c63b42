"""The table of graceful degradation says what the code does: known codes, and for every row a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.kit.errors import OUTCOMES
from services.llm.settings import LlmSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "degradation.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| down |")]
OPEN: set[str] = set()  # rows whose test is not written yet: this set may only shrink


def test_every_row_has_its_four_cells_and_no_row_is_there_twice() -> None:
    assert len(ROWS) > 20
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_every_row_names_a_test_that_exists() -> None:
    for down, _, _, proof in ROWS:
        if proof == "*open*":
            assert down in OPEN, f"{down}: a row that was proved must stay proved"
            continue
        named = re.fullmatch(r"`(tests/[\w/]+\.py)` \(`(test_\w+)`\)", proof)
        assert named, f"{down}: {proof}"
        file = ROOT / named[1]
        assert file.is_file(), f"{down}: {file}"
        assert re.search(rf"def {named[2]}\(", file.read_text()), f"{down}: no {named[2]} in {named[1]}"


def test_every_code_is_one_of_ours() -> None:
    assert {code for row in ROWS for code in re.findall(r"`([a-z_]+)`", row[2])} <= OUTCOMES.keys()


def test_every_setting_that_is_named_exists() -> None:
    assert set(re.findall(r"`([a-z]+(?:_[a-z]+)*_seconds)`", PAGE)) <= LlmSettings.model_fields.keys()
