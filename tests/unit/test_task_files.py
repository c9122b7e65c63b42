"""Files of tasks: what is read, and how a slip of the pen is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.task_files import json_argument, read_tasks, with_fresh_keys
from appliance.kit.errors import ApplianceError

DEMO = Path(__file__).resolve().parents[2] / "demo" / "tasks" / "quarter_report.json"


def test_the_demo_is_a_dag_of_six() -> None:
    tasks = read_tasks(str(DEMO))
    keys = [task["key"] for task in tasks]
    assert keys == ["north", "south", "letters", "sum", "report", "seal"]
    assert all(set(task.get("dependencies", ())) <= set(keys[:number]) for number, task in enumerate(tasks))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"tasks": [{"type": "a", "key": "k"}], "space": "legal"}'),
        ("a.json", '[{"type": "a", "key": "k", "space": "legal"}]'),
        ("a.toml", 'space = "legal"\n[[tasks]]\ntype = "a"\nkey = "k"\n'),
        ("a", '[[tasks]]\ntype = "a"\nkey = "k"\nspace = "legal"\n'),
    ],
)
def test_json_and_toml_mean_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_tasks(str(tmp_path / name)) == [{"space": "legal", "type": "a", "key": "k"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("tasks = ", "not TOML"),
        ('{"task": []}', "unknown field 'task'"),
        ('{"tasks": []}', "no tasks there"),
        ('{"tasks": {}}', "no list of tasks"),
        ('{"tasks": [5]}', "task 1 is not a table"),
        ('{"tasks": [{"key": "k"}]}', "task 1 (k) has no type"),
        ('{"tasks": [{"type": "a"}, {"type": "b", "dependsOn": []}]}', "task 2 has an unknown field 'dependsOn'"),
        ('{"tasks": [{"type": "a", "inputData": NaN}]}', "NaN is not JSON"),
        ("[" * 100_000, "not TOML"),
    ],
)
def test_a_slip_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "dag").write_text(text)
    with pytest.raises(ApplianceError) as caught:
        read_tasks(str(tmp_path / "dag"))
    assert words in caught.value.message
    assert caught.value.hint


def test_absent_binary_and_big_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "big").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    for name, code in (("absent", "invalid_request"), ("binary", "invalid_request"), ("big", "too_large"), (".", "invalid_request")):
        with pytest.raises(ApplianceError) as caught:
            read_tasks(str(tmp_path / name))
        assert caught.value.code == code


def test_fresh_keys_keep_the_dag() -> None:
    first, second = with_fresh_keys([{"type": "a", "key": "k"}, {"type": "b", "dependencies": ["k", "t_1"]}])
    assert first["key"] != "k"
    assert second == {"type": "b", "dependencies": [first["key"], "t_1"]}


def test_an_argument_of_json_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert json_argument(f"@{tmp_path / 'x.json'}", "--input") == json_argument('{"a": 1}', "--input") == {"a": 1}
    assert json_argument(None, "--input") is None
    with pytest.raises(ApplianceError, match="--input is not JSON"):
        json_argument("{a}", "--input")
