"""Python source in, findings out; hostile source costs one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.testing.fakes_orchestrator import RecordingContext, sample_task
from services.orchestrator.executors.code_analysis.features import extract_features
from services.orchestrator.executors.code_analysis.rules import RULES, Features, Thresholds, judge
from services.orchestrator.executors.settings import ExecutorSettings
from services.orchestrator.executors.specialized_ml import Chain, SpecializedExecutor, code_analyser
from services.orchestrator.executors.worker_group import WorkerGroup
from services.orchestrator.ports import ExecutionFailedError

MANY = "\n".join(f"    if a == {n}:\n        return {n}" for n in range(12))
SAMPLES = {
    "code_from_text": ("x = eval(text)", "x = ast.literal_eval(text)"),
    "shell_command": ("import os\nos.system('ls ' + name)", "import os\nos.listdir(name)"),
    "shell_true": ("import subprocess\nsubprocess.run(cmd, shell=True)", "import subprocess\nsubprocess.run(cmd, shell=False)"),
    "unsafe_load": ("import pickle\npickle.loads(data)", "import json\njson.loads(data)"),
    "sql_built": ("db.execute(f'SELECT * FROM users WHERE id = {user}')", "db.execute('SELECT * FROM users WHERE id = ?', (user,))"),
    "secret": ("db_password = 'hunter2hunter2'", "db_password = os.environ['DB_PASSWORD']"),
    "tls_unverified": ("requests.get(url, verify=False)", "requests.get(url, verify=ca)"),
    "bare_except": ("try:\n    f()\nexcept:\n    g()", "try:\n    f()\nexcept ValueError:\n    g()"),
    "swallowed_error": ("try:\n    f()\nexcept Exception:\n    pass", "try:\n    f()\nexcept KeyError:\n    pass"),
    "mutable_default": ("def f(a=[]): ...", "def f(a=()): ..."),
    "weak_hash": ("import hashlib\nhashlib.md5(b'')", "import hashlib\nhashlib.md5(b'', usedforsecurity=False)"),
    "mktemp": ("import tempfile\ntempfile.mktemp()", "import tempfile\ntempfile.mkstemp()"),
    "debug_on": ("app.run(debug=True)", "app.run(debug=False)"),
    "is_literal": ("a is 'x'", "a is None or a is True"),
    "assert_tuple": ("assert (a, 'message')", "assert a, 'message'"),
    "finally_jumps": (
        "def f():\n    try:\n        g()\n    finally:\n        return 1",
        "def f():\n    try:\n        return 1\n    finally:\n        g()",
    ),
    "star_import": ("from os import *", "from os import path\npath"),
    "unused_import": ("import os", "import os\nos"),
    "none_compared": ("a == None", "a is None"),
    "syntax_error": ("def f(:", "def f(): ..."),
    "too_complex": (f"def f(a):\n{MANY}", "def f(a):\n    return a"),
    "too_long": ("def f():\n" + "    g()\n" * 90, "def f():\n    g()"),
    "too_many_parameters": ("def f(a, b, c, d, e, *, f, g, h, i): ...", "def f(a): ..."),
}


def rules_of(source: str) -> set[str]:
    features = msgspec.convert(extract_features({"source": source}), Features)
    return {finding.rule for finding in judge(features, Thresholds())}


def test_every_rule_has_a_sample() -> None:
    assert set(SAMPLES) == set(RULES)


@pytest.mark.parametrize("rule", sorted(SAMPLES))
def test_a_rule_finds_what_is_wrong_and_lets_pass_what_is_right(rule: str) -> None:
    wrong, right = SAMPLES[rule]
    assert rule in rules_of(wrong)
    assert rule not in rules_of(right)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("connect(password='s3cr3t-pass')", "secret"),
        ("config = {'api_key': 'abcdef123456'}", "secret"),
        ("config['token'] = 'abcdef123456'", "secret"),
        ("key = '-----BEGIN RSA PRIVATE KEY-----'", "secret"),
        ("cursor.execute('DELETE FROM t WHERE a = %s' % a)", "sql_built"),
        ("cursor.execute('DELETE FROM t WHERE a = ' + a)", "sql_built"),
        ("cursor.execute('select a from t where b = {}'.format(b))", "sql_built"),
        ("def f(a=dict()): ...", "mutable_default"),
        ("async def f(*, a={}): ...", "mutable_default"),
        ("import yaml\nyaml.load(data)", "unsafe_load"),
    ],
)
def test_variants_are_found(source: str, rule: str) -> None:
    assert rule in rules_of(source)


@pytest.mark.parametrize(
    "source",
    [
        "password = ''", "password = 'changeme'", "password_field = 1", "tokenizer = 'abcdefgh'", "password = '{password}'", "db.execute('SELECT 1 ' 'FROM t')",
        "import yaml\nyaml.load(data, Loader=yaml.SafeLoader)", "from os import path as path", "import a.b\na.b.c()", "import os\n__all__ = ['os']",
        "from __future__ import annotations", "x: 'os.PathLike'\nimport os",
    ],
)  # fmt: skip
def test_what_is_fine_raises_no_alarm(source: str) -> None:
    assert rules_of(source) == set()


def test_complexity_is_mccabes() -> None:
    source = "def f(a, b):\n    if a and b:\n        return [x for x in a if x]\n    for c in b:\n        while c:\n            c -= 1\n    def g():\n        if a: pass\n"
    found = {one["name"]: one["complexity"] for one in extract_features({"source": source})["functions"]}
    assert found == {"f": 7, "g": 2}


@pytest.fixture
async def executor() -> AsyncIterator[SpecializedExecutor]:
    group = WorkerGroup(ExecutorSettings(memory_bytes=768 * 1024**2))
    await group.start()

    async def healthy() -> str:
        return "fine"

    try:
        yield SpecializedExecutor((code_analyser(group),), 2, healthy)
    finally:
        await group.stop()


async def analyse(executor: SpecializedExecutor, data: object) -> Any:
    async with asyncio.timeout(40):
        return msgspec.json.decode((await executor.execute(sample_task("code_analysis", data), RecordingContext())).result)


async def test_a_task_gets_a_report(executor: SpecializedExecutor) -> None:
    found = await analyse(executor, {"source": "import os\nx = eval(y)\n"})
    assert [(one["rule"], one["severity"], one["line"]) for one in found["findings"]] == [
        ("unused_import", "note", 1),
        ("code_from_text", "error", 2),
    ]
    assert found["counts"] == {"error": 1, "warning": 0, "note": 1}
    assert found["measures"]["lines"] == 2
    only = await analyse(executor, {"source": "import os\nx = eval(y)\n", "leastSeverity": "error"})
    assert [one["rule"] for one in only["findings"]] == ["code_from_text"]
    short = await analyse(executor, {"source": "import os\n" * 50, "mostFindings": 3})
    assert (len(short["findings"]), short["counts"]["note"], short["shown"]) == (3, 50, 3)
    strict = await analyse(executor, {"source": "def f(a):\n    if a: pass\n", "thresholds": {"complexity": 1}})
    assert [one["rule"] for one in strict["findings"]] == ["too_complex"]


async def test_the_analyser_reads_its_own_sources(executor: SpecializedExecutor) -> None:
    for path in sorted(Path("services/orchestrator/executors").rglob("*.py")):
        found = await analyse(executor, {"source": path.read_text(), "leastSeverity": "warning"})
        assert [one for one in found["findings"] if one["rule"] == "syntax_error"] == [], path


@pytest.mark.parametrize(
    "source",
    ["(" * 100_000, "[" * 90 + "]" * 90, "-" * 200_000 + "1", "x" + ".a" * 200_000, "a = " + "b + " * 100_000 + "c", "if a:\n" + "".join(" " * n + "if a:\n" for n in range(1, 300)),
     "\x00", "\ud800", "1" * 100_000, "f'" + "{x:" * 50, "lambda: " * 50_000 + "1", "x = " + "not " * 100_000 + "y", "😀" * 1000, "#" * 900_000, "pass;" * 150_000,
     "'" + "a" * 900_000 + "'", "eval(x)\n" * 20_000],
    ids=range(17),
)  # fmt: skip
async def test_hostile_source_costs_one_answer(executor: SpecializedExecutor, source: str) -> None:
    try:
        found = await analyse(executor, {"source": source.encode("utf-8", "replace").decode()})
        assert len(found["findings"]) <= 200
    except ExecutionFailedError as error:
        assert not error.retryable
    assert await analyse(executor, {"source": "x = 1"})


@pytest.mark.parametrize(
    "data", [{}, {"source": 1}, [], "x = 1", {"source": "", "leastSeverity": "loud"}, {"source": "", "mostFindings": 0}, {"source": "x" * 1_000_001}]
)
async def test_bad_input_is_refused_for_good(executor: SpecializedExecutor, data: object) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        await analyse(executor, data)
    assert not caught.value.retryable


async def test_a_chain_is_transformer_model_transformer() -> None:
    async def read(data: Any) -> list[int]:
        return [len(word) for word in data["words"]]

    async def predict(lengths: list[int]) -> int:
        return max(lengths)

    async def write(longest: int) -> dict[str, int]:
        return {"longest": longest}

    async def healthy() -> str:
        return "fine"

    executor = SpecializedExecutor((Chain("longest-1", "longest_word", read, predict, write),), 1, healthy)
    done = await executor.execute(sample_task("longest_word", {"words": ["a", "abc"]}), RecordingContext())
    assert (msgspec.json.decode(done.result), done.metrics) == ({"longest": 3}, {"model": "longest-1"})
    with pytest.raises(ExecutionFailedError, match="no model"):
        await executor.execute(sample_task("other"), RecordingContext())
    assert executor.capabilities().supported_task_types == ("longest_word",)


async def test_cancelling_ends_the_work() -> None:
    begun = asyncio.Event()

    async def hang(_: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async def healthy() -> str:
        return "fine"

    executor = SpecializedExecutor((Chain("x", "hang", hang, hang, hang),), 1, healthy)
    running = asyncio.create_task(executor.execute(sample_task("hang"), RecordingContext()))
    async with asyncio.timeout(5):
        await begun.wait()
        await executor.cancel("t_1")
        with pytest.raises(ExecutionFailedError) as caught:
            await running
    assert caught.value.code == "cancelled"
