"""``appliance smoke`` against a real box: green where all is well, red and by name where it is not, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from appliance.home import Home
from appliance.kit.offline import sealed_variables
from appliance.smoke.box import SmokeBox, SmokeFailure, SmokeSkip
from appliance.smoke.report import as_junit
from appliance.smoke.runner import SmokeTest, load_tests, run_one, run_tests, smoke_folder
from appliance.smoke.schema_check import violations
from appliance.smoke.sockets import family_of, leading_out, variables
from appliance.testing.box_process import ROOT, BoxProcess, box_process

NAMES = ("00_health", "10_completion", "20_embedding", "30_rerank", "40_cited_answer", "50_schema", "60_task", "70_models", "80_no_egress", "90_audit")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoxProcess]:
    if not (ROOT / "var" / "models" / "embed").is_dir():
        pytest.skip("no model snapshot in var/models: run make setup")
    with box_process(tmp_path_factory.mktemp("smoke-box")) as running:
        yield running


@pytest.fixture
def smoke_box(box: BoxProcess) -> Iterator[SmokeBox]:
    with httpx.Client(trust_env=False) as http:
        yield SmokeBox(box.url, box.key, box.home, is_here=True, http=http)


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "APPLIANCE_HOME": str(home)}
    environment.pop("APPLIANCE_API_KEY", None)
    line = [sys.executable, "-m", "appliance.cli.main", "smoke", *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=90)


def test_a_good_box_is_green_and_nothing_stays_behind(box: BoxProcess, tmp_path: Path) -> None:
    done = command(box.home.path, "--json", "--junit", str(tmp_path / "smoke.xml"))
    report = json.loads(done.stdout)
    verdicts = {test["name"]: (test["verdict"], test["detail"]) for test in report["tests"]}
    assert done.returncode == 0, verdicts
    assert tuple(verdicts) == NAMES
    assert {verdict for verdict, _ in verdicts.values()} == {"passed"}, verdicts
    suite = ET.parse(tmp_path / "smoke.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("10", "0", "0")
    with box.client() as client:
        assert not [space for space in client.get("/api/spaces").json()["data"] if space["name"].startswith("smoke-")]
        assert client.get("/api/documents").json()["data"] == []


def test_a_failure_has_its_name_its_hint_and_exit_status_62(box: BoxProcess, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}"
    done = command(box.home.path, "--only", "00,audit", "--url", nobody)
    assert done.returncode == 62
    assert "FAILED" in done.stdout
    assert "appliance up" in done.stdout
    assert "2 of 2 smoke tests failed: 00_health, 90_audit (smoke_failed)" in done.stderr
    no_key = command(tmp_path / "elsewhere", "--only", "30", "--url", box.url, "--json")
    assert (no_key.returncode, json.loads(no_key.stdout)["tests"][0]["verdict"]) == (62, "failed")
    assert "401" in no_key.stdout
    assert command(box.home.path, "--only", "77").returncode == 2
    assert command(tmp_path / "elsewhere").returncode == 40


def test_the_cited_answer_cleans_up_after_a_failure(smoke_box: SmokeBox, box: BoxProcess) -> None:
    class Mute(SmokeBox):
        def post(self, path: str, body: object) -> Any:
            if path == "/v1/chat/completions":
                raise SmokeFailure("no answer")
            return super().post(path, body)

    mute = Mute(smoke_box.url, smoke_box.key, smoke_box.home, is_here=True, http=smoke_box.http)
    (test,) = load_tests(smoke_folder(), ["40"])
    result = run_one(test, mute)
    assert (result.verdict, result.detail) == ("failed", "no answer")
    with box.client() as client:
        client.post("/api/spaces", json={"name": "smoke-left", "title": "smoke test 1000000000"}).raise_for_status()
        client.post("/api/spaces", json={"name": "smoke-signals", "title": "ours"}).raise_for_status()
        assert run_one(test, smoke_box).verdict == "passed"
        spaces = {space["name"] for space in client.get("/api/spaces").json()["data"] if space["name"].startswith("smoke-")}
        assert spaces == {"smoke-signals"}, "leftovers of killed runs go, the customer's own spaces stay"
        client.delete("/api/spaces/smoke-signals").raise_for_status()


def test_an_answer_that_does_not_keep_to_the_form_fails_by_what_is_wrong(smoke_box: SmokeBox) -> None:
    class Careless(SmokeBox):
        def answer(self, method: str, path: str, **options: Any) -> httpx.Response:
            if path != "/v1/chat/completions":
                return super().answer(method, path, **options)
            return httpx.Response(200, json={"choices": [{"message": {"content": '{"number": "12", "place": "hall 4"}'}}]})

    careless = Careless(smoke_box.url, smoke_box.key, smoke_box.home, is_here=True, http=smoke_box.http)
    (test,) = load_tests(smoke_folder(), ["50_schema"])
    result = run_one(test, careless)
    assert result.verdict == "failed"
    assert "lacks 'owner'" in result.detail
    assert "not integer" in result.detail


def test_an_altered_model_is_named(smoke_box: SmokeBox, tmp_path: Path) -> None:
    (test,) = load_tests(smoke_folder(), ["70_models"])
    home = tmp_path / "home"
    shutil.copytree(smoke_box.home.path / "models", home / "models")
    shutil.copytree(smoke_box.home.path / "keys", home / "keys")
    shutil.copytree(smoke_box.home.path / "run", home / "run")
    file = home / "models" / "embed" / "minilm-v1" / "tokenizer.json"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    result = run_one(test, SmokeBox(smoke_box.url, smoke_box.key, Home(home), is_here=True, http=smoke_box.http))
    assert result.verdict == "failed"
    assert "tokenizer.json" in result.detail


def test_a_hanging_or_broken_test_does_not_stop_the_others(smoke_box: SmokeBox, tmp_path: Path) -> None:
    (tmp_path / "10_hangs.py").write_text("import threading\nTITLE='hangs'\nSECONDS=0.2\ndef run(box): threading.Event().wait()\n")
    (tmp_path / "20_breaks.py").write_text("TITLE='breaks'\ndef run(box): return {}['x']\n")
    (tmp_path / "30_works.py").write_text("TITLE='works'\ndef run(box): return 'fine'\n")
    (tmp_path / "notes.py").write_text("raise SystemExit\n")
    results = list(run_tests(load_tests(tmp_path), smoke_box))
    assert [(result.name, result.verdict) for result in results] == [("10_hangs", "failed"), ("20_breaks", "failed"), ("30_works", "passed")]
    assert ET.fromstring(as_junit(results, url="x\x00", started_at="now"))[0].get("failures") == "2"


def test_a_skip_says_why(smoke_box: SmokeBox) -> None:
    def skip(_: SmokeBox) -> str:
        raise SmokeSkip("not here")

    assert run_one(SmokeTest("99_x", "x", 1.0, skip), smoke_box).detail == "not here"


def test_a_socket_that_leads_out_is_seen_and_a_missing_switch_too(tmp_path: Path) -> None:
    code = (
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try:\n s.connect(('192.0.2.1', 9))\nexcept OSError:\n print('no route', flush=True)\nelse:\n print('open', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() == "no route":
            pytest.skip("this machine has no route out, so no socket can lead there")
        assert process.pid in family_of(os.getpid())
        (found,) = leading_out(process.pid, set())
        assert re.fullmatch(r"udp \S+ → 192\.0\.2\.1:9", found)
        assert leading_out(process.pid, {("192.0.2.1", 9)}) == []
        assert not sealed_variables(tmp_path).items() <= variables(process.pid).items()
    finally:
        process.communicate("")


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        ({"a": 1}, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, 0),
        ({}, {"type": "object", "required": ["a"]}, 1),
        ({"a": True}, {"properties": {"a": {"type": "integer"}}}, 1),
        ({"b": 1}, {"type": "object", "properties": {}, "additionalProperties": False}, 1),
        ({"b": "x"}, {"additionalProperties": {"type": "integer"}}, 1),
        ([1, "x"], {"type": "array", "items": {"type": "integer"}}, 1),
        (None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, 0),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ("x", {"$ref": "#/components/schemas/S"}, 1),
        ("x", {"enum": ["y"]}, 1),
        (1, {"maximum": 0, "minimum": 2}, 2),
        ("x", {"type": "string", "frobnicate": 1}, 1),
    ],
)
def test_the_schema_check_knows_right_from_wrong(value: object, schema: dict[str, Any], wrong: int) -> None:
    assert len(violations(value, schema, {"components": {"schemas": {"S": {"type": "integer"}}}})) == wrong
