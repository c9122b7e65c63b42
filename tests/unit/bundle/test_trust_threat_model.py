"""Every threat of ``docs/threat-model.md`` names tests that exist, and every hostile name in it is in the table."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from tests.hostile.make_bundles import hostile_bundles

ROOT = Path(__file__).resolve().parents[3]
ROWS = re.findall(r"^\| (T\d+) \|(.*)\|$", (ROOT / "docs" / "threat-model.md").read_text(), re.MULTILINE)


def test_every_threat_names_a_test_that_exists():
    assert [name for name, _ in ROWS] == [f"T{number}" for number in range(1, len(ROWS) + 1)]
    assert len(ROWS) > 25
    for name, row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"{name} names no test"
        for file, test in named:
            assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{name}: {file}::{test}"


def test_every_group_of_hostile_bundles_in_it_has_members():
    groups = [group for _, row in ROWS for group in re.findall(r"`([a-z]+(?:-[a-z]+)*(?:-\*)?)`", row) if "-" in group]
    assert len(groups) > 10
    for group in groups:
        assert any(fnmatch(name, group) for name in hostile_bundles()), group
