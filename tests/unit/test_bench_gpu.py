"""``make bench-gpu`` on a machine without what it needs: says what is missing by name and ends with 2."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from bench import gpu


@pytest.mark.skipif(bool(find_spec("torch")), reason="torch is installed here")
def test_without_torch_it_says_so_and_ends_with_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.gpu"])
    monkeypatch.setattr(gpu, "seal_environment", lambda _home: None)
    assert gpu.main() == 2
    told = capsys.readouterr()
    assert "torch, sentence_transformers, transformers not installed" in told.err
    assert not told.out


def test_the_table_has_a_row_for_each_figure() -> None:
    assert gpu._table("H100", [("embed", 1234.5, "texts/s")]).splitlines() == [
        "# H100",
        "",
        "| what | value | unit |",
        "|---|---|---|",
        "| embed | 1,234.5 | texts/s |",
    ]
