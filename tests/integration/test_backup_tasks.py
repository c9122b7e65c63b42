"""Tasks and knowledge survive the loss of the home: a backup of a working box, or of one that is down, brings them back, and what was running goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.testing.box_process import ROOT, box_process

pytestmark = pytest.mark.faults

_STEPS = 400
_SECONDS = 60.0


def _cli(home: Path, *words: str) -> Any:
    environment = {**os.environ, "APPLIANCE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _submit(client: httpx.Client) -> list[str]:
    """One that ends at once, one that takes long, one that waits for it."""
    tasks = [
        {"key": "sum", "type": "math.sum", "inputData": {"numbers": [40, 2]}},
        {"key": "long", "type": "workflow.steps", "inputData": {"steps": _STEPS, "pauseSeconds": 0.01}},
        {"key": "after", "type": "text.word_count", "inputData": {"text": "one two three"}, "dependencies": ["long"]},
    ]
    made = client.post("/api/tasks", json={"tasks": tasks})
    made.raise_for_status()
    return [task["id"] for task in made.json()["data"]]


def _task(client: httpx.Client, task: str) -> Any:
    return client.get(f"/api/tasks/{task}").raise_for_status().json()


def _until_it_works(client: httpx.Client, task: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while _task(client, task)["progress"] <= 0.02:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _steps(client: httpx.Client, task: str) -> list[str]:
    events = client.get(f"/api/tasks/{task}/history").raise_for_status().json()["data"]
    return [name for event in events for name in _names(event)]


def _names(event: dict[str, Any]) -> list[str]:
    detail = event.get("detail") or event.get("data") or {}
    return [str(detail["step"])] if "step" in detail else [str(one["name"]) for one in detail.get("steps", []) if isinstance(one, dict)]


def _goes_on(home: Path, ids: list[str], entry: str) -> None:
    """Everything is there, and what was running ends with no step twice."""
    with box_process(home) as box, box.client() as client:
        done, long, after = ids
        assert _task(client, done)["result"] == {"sum": 42.0}
        assert client.get(f"/api/tasks/{after}/wait", params={"timeout": 50}).raise_for_status().json()["status"] == "completed"
        assert _task(client, long)["status"] == "completed"
        steps = _steps(client, long)
        assert len(steps) == len(set(steps))
        assert client.get(f"/api/knowledge/{entry}").raise_for_status().json()["id"] == entry
        found = client.post("/api/knowledge/search", json={"query": "pump calibration"}).raise_for_status().json()["data"]
        assert entry in json.dumps(found)
        assert not (home / "nats" / "restore").exists()


def _remember(client: httpx.Client) -> str:
    body = {"type": "domain_knowledge", "content": "The pump calibration is done in hall 3."}
    answer = client.post("/api/knowledge", json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


def test_a_backup_of_a_working_box_has_its_tasks_and_they_go_on(tmp_path: Path) -> None:
    home, again, saved = tmp_path / "home", tmp_path / "again", tmp_path / "box.backup"
    with box_process(home) as box, box.client() as client:
        entry = _remember(client)
        ids = _submit(client)
        client.get(f"/api/tasks/{ids[0]}/wait", params={"timeout": 20}).raise_for_status()
        _until_it_works(client, ids[1])
        _cli(home, "backup", "-o", str(saved), "--json")
    shutil.rmtree(home)

    _cli(again, "restore", str(saved), "--home", str(again), "--json")

    _goes_on(again, ids, entry)


def test_a_backup_of_a_box_that_is_down_has_them_too(tmp_path: Path) -> None:
    home, again, saved = tmp_path / "home", tmp_path / "again", tmp_path / "box.backup"
    with box_process(home) as box, box.client() as client:
        entry = _remember(client)
        ids = _submit(client)
        client.get(f"/api/tasks/{ids[0]}/wait", params={"timeout": 20}).raise_for_status()
        _until_it_works(client, ids[1])
    _cli(home, "backup", "-o", str(saved), "--json")
    shutil.rmtree(home)

    _cli(again, "restore", str(saved), "--home", str(again), "--json")

    _goes_on(again, ids, entry)
