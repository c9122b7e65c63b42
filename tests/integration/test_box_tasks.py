"""Tasks on a real box: submitted on the command line, the box killed in the middle, started again, nothing that was finished done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from appliance.testing.box_process import ROOT, BoxProcess, box_process

_SECONDS = 60.0
_PLUGIN = """
from appliance.contracts.functions.v1.api import function


@function("site.double")
async def double(_ctx, data):
    return {"value": 2 * data["value"]}
"""


def _cli(home: Path, *words: str) -> str:
    environment = {**os.environ, "APPLIANCE_HOME": str(home)}
    environment.pop("APPLIANCE_API_KEY", None)
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _until(what: Callable[[], Any], seconds: float = _SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def _task(client: httpx.Client, task: str) -> Any:
    return client.get(f"/api/tasks/{task}").raise_for_status().json()


def _done(client: httpx.Client, task: str) -> Any:
    return _until(lambda: (found := _task(client, task))["status"] in {"completed", "failed"} and found)


def _submitted(client: httpx.Client, *tasks: dict[str, Any]) -> list[str]:
    answer = client.post("/api/tasks", json={"tasks": list(tasks)})
    assert answer.status_code == 201, answer.text
    return [task["id"] for task in answer.json()["data"]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoxProcess]:
    home = tmp_path_factory.mktemp("task-box")
    (home / "functions").mkdir()
    (home / "functions" / "ours.py").write_text(_PLUGIN)
    with box_process(home) as running:
        yield running


def test_a_killed_box_finishes_what_was_submitted_and_repeats_nothing(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "dag.json"
    tasks = [{"key": f"part{number}", "type": "workflow.steps", "inputData": {"steps": 60, "pauseSeconds": 0.03}} for number in range(4)]
    tasks.append({"key": "end", "type": "math.sum", "inputData": {"numbers": [1, 2]}, "dependencies": [task["key"] for task in tasks]})
    file.write_text(json.dumps({"tasks": tasks}))
    with box_process(home) as box, box.client() as client:
        ids = [json.loads(line)["id"] for line in _cli(home, "tasks", "submit", str(file), "--json").splitlines()]
        _until(lambda: all(_task(client, task)["progress"] > 0.1 for task in ids[:4]))
        children = psutil.Process(box.pid).children(recursive=True)
        psutil.Process(box.pid).kill()
        psutil.wait_procs(children, 10)

    with box_process(home) as box, box.client() as client:
        assert [_done(client, task)["status"] for task in ids] == ["completed"] * 5
        for task in ids:
            events = client.get(f"/api/tasks/{task}/history").raise_for_status().json()["data"]
            names = Counter(event["name"] for event in events)
            assert names["TaskCompleted"] == 1
            steps = Counter(event["data"]["step"] for event in events if event["name"] == "StepFinished")
            assert len(steps) == (0 if task == ids[4] else 60)
            assert set(steps.values()) <= {1}, "a step that was durable ran again"
        assert "completed" in _cli(home, "tasks", "show", ids[4])


def test_functions_of_the_site_and_the_models_of_the_box_take_tasks(box: BoxProcess) -> None:
    with box.client() as client:
        answer = client.post("/api/documents", params={"space": "default"}, files={"file": ("pump.txt", b"The pump P-17 is serviced every 90 days.")})
        document = answer.raise_for_status().json()["data"][0]["document"]["id"]
        _until(lambda: client.get(f"/api/documents/{document}").json()["status"] == "ready")
        plugin, question, code = _submitted(
            client,
            {"type": "site.double", "inputData": {"value": 21}},
            {"type": "question_answering", "inputData": {"prompt": "How often is the pump P-17 serviced?"}},
            {"type": "code_analysis", "inputData": {"source": "eval(input())\n"}},
        )
        assert _done(client, plugin)["result"] == {"value": 42}
        answered = _done(client, question)["result"]
        assert "90 days" in answered["text"]
        assert answered["sources"][0]["documentId"] == document
        assert _done(client, code)["result"]["counts"]["error"] >= 1
        events = client.get(f"/api/tasks/{question}/history").raise_for_status().json()["data"]
        (assigned,) = [event for event in events if event["name"] == "Assigned"]
        assert assigned["data"]["models"], "which model it began with is in its history"


def test_the_reader_finds_nothing_of_another_space(box: BoxProcess) -> None:
    with box.client() as client:
        for space in ("left", "right"):
            client.post("/api/spaces", json={"name": space, "title": space}).raise_for_status()
        answer = client.post("/api/documents", params={"space": "left"}, files={"file": ("code.txt", b"The code of the safe is 4711.")})
        document = answer.raise_for_status().json()["data"][0]["document"]["id"]
        _until(lambda: client.get(f"/api/documents/{document}").json()["status"] == "ready")
        here, there = _submitted(
            client,
            *(
                {"type": "question_answering", "space": space, "inputData": {"prompt": "What is the code of the safe?"}}
                for space in ("left", "right")
            ),
        )
        assert "4711" in _done(client, here)["result"]["text"]
        assert "4711" not in _done(client, there)["result"]["text"]


def test_a_removed_space_takes_its_tasks_schedules_and_knowledge_along(box: BoxProcess) -> None:
    with box.client() as client:
        client.post("/api/spaces", json={"name": "gone", "title": "gone"}).raise_for_status()
        running, ended = _submitted(
            client,
            {"type": "time.sleep_until", "space": "gone", "inputData": {"seconds": 3000}},
            {"type": "math.sum", "space": "gone", "inputData": {"numbers": [1]}},
        )
        _done(client, ended)
        _until(lambda: _task(client, running)["status"] == "executing")
        entry = (
            client.post("/api/knowledge", json={"type": "domain_knowledge", "content": "Only here.", "space": "gone"}).raise_for_status().json()["id"]
        )
        spec = {"type": "math.sum", "space": "gone", "inputData": {"numbers": [1]}}
        client.put("/api/schedules/nightly", json={"trigger": {"cron": "0 7 * * 1-5", "timezone": "UTC"}, "spec": spec}).raise_for_status()

        client.delete("/api/spaces/gone", params={"force": "true"}).raise_for_status()

        def is_free() -> bool:
            return client.post("/api/spaces", json={"name": "gone", "title": "another"}).status_code < 300

        _until(is_free)
        for task in (running, ended):
            assert client.get(f"/api/tasks/{task}").status_code == 404
        assert client.get(f"/api/knowledge/{entry}").status_code == 404
        assert client.get("/api/schedules", params={"space": "gone"}).raise_for_status().json()["data"] == []


def test_readyz_shows_the_event_log_the_workers_and_the_open_tasks(box: BoxProcess) -> None:
    with box.client() as client:
        checks = client.get("/readyz").raise_for_status().json()["checks"]
    assert "sync always" in checks["event_log"]["detail"]
    assert "workers" in checks["functions"]["detail"]
    assert "executors online" in checks["open_tasks"]["detail"]
