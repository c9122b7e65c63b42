"""The appliance home belongs to its owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.doctor import Finding, examine
from appliance.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    before = os.umask(0o022)
    try:
        yield Home(tmp_path / "home")
    finally:
        os.umask(before)


def privacy(home: Home) -> Finding:
    return next(finding for finding in examine(home, 8080) if finding.check == "privacy")


def test_a_new_home_is_closed_to_others_and_so_is_what_is_written_into_it(home: Home) -> None:
    home.create()
    (home.path / "box.db").write_bytes(b"")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (home.path, *home.folders)} == {0o700}
    assert stat.S_IMODE((home.path / "box.db").stat().st_mode) == 0o600
    assert privacy(home).level == "ok"


def test_an_open_home_is_reported_and_the_next_start_closes_it(home: Home) -> None:
    home.path.mkdir()
    home.logs.mkdir()
    (home.logs / "box.jsonl").write_bytes(b"")
    finding = privacy(home)
    assert finding.level == "fail"
    assert "logs/box.jsonl" in finding.detail
    assert "chmod" in finding.advice
    home.create()
    assert privacy(home).level == "ok"


def test_a_folder_that_everybody_shares_is_never_closed(home: Home) -> None:
    home.path.mkdir()
    home.path.chmod(0o1777)
    home.create()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o1777
    assert privacy(home).level == "fail"


def test_the_port_of_the_last_start_is_known_after_the_stop(home: Home) -> None:
    home.create()
    assert home.last_port() is None
    home.announce("http://127.0.0.1:8123")
    home.withdraw()
    assert home.last_port() == 8123
