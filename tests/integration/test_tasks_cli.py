"""``appliance tasks`` and its sisters as a person runs them, against a box with the real orchestrator and its functions."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.main import get_command

from appliance.cli.box_client import BoxClient
from appliance.cli.main import app, main
from appliance.cli.task_watch import Watch
from appliance.kit.errors import OUTCOMES, ApplianceError
from tests.integration.gateway_bed import RunningBox, running_bed

DEMO = Path(__file__).resolve().parents[2] / "demo" / "tasks" / "quarter_report.json"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBox]:
    with running_bed(tmp_path_factory.mktemp("cli"), with_tasks=True) as running:
        yield running


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def run(box: RunningBox, *words: str, given: str = "") -> Done:
    """The command line as ``main`` runs it, in this process: starting Python for each would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    mask = os.umask(0o077)
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("APPLIANCE_URL", box.url)
            patch.setenv("APPLIANCE_API_KEY", box.admin_key)
            patch.setattr("sys.argv", ["appliance", *words])
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
            with pytest.raises(SystemExit) as ended:
                main()
    finally:
        os.umask(mask)
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def rows(done: Done) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_demo_runs_to_its_end_and_its_history_is_readable(box: RunningBox) -> None:
    tasks = rows(run(box, "tasks", "submit", str(DEMO), "--wait", "--json"))
    assert {task["key"]: task["status"] for task in tasks} == dict.fromkeys(("north", "south", "letters", "sum", "report", "seal"), "completed")
    (total,) = [task["result"] for task in tasks if task["key"] == "sum"]
    assert total == {"sum": 2603.75}
    report = next(task for task in tasks if task["key"] == "report")
    shown = run(box, "tasks", "show", report["id"])
    assert shown.returncode == 0
    for word in ("✔ completed", "TaskCreated", "StepFinished", "step-10", "TaskCompleted"):
        assert word in shown.stdout
    drawn = run(box, "tasks", "graph", report["id"])
    assert "│ ✔ report │" in drawn.stdout
    assert [task["id"] for task in rows(run(box, "tasks", "submit", str(DEMO), "--json"))] == [task["id"] for task in tasks]
    watched = run(box, "tasks", "watch", report["id"])
    assert (watched.returncode, "6 completed" in watched.stderr) == (0, True)


def test_a_fresh_dag_has_new_tasks_and_toml_from_stdin_is_read(box: RunningBox) -> None:
    toml = '[[tasks]]\ntype = "math.sum"\nkey = "a"\ninputData = {numbers = [1, 2]}\n[[tasks]]\ntype = "text.word_count"\ndependencies = ["a"]\ninputData = {text = "x y"}\n'
    first = rows(run(box, "tasks", "submit", "-", "--json", "--wait", given=toml))
    second = rows(run(box, "tasks", "submit", "-", "--json", "--fresh", "--wait", given=toml))
    assert first[0]["id"] != second[0]["id"]
    assert second[1]["dependencies"] == [second[0]["id"]]
    assert [task["result"] for task in second] == [{"sum": 3.0}, {"words": 2}]


def test_a_failure_has_an_exit_status_and_a_hint(box: RunningBox) -> None:
    done = run(box, "tasks", "submit", "--type", "math.sum", "--input", '{"numbers": ["a"]}', "--wait")
    assert done.returncode == OUTCOMES["task_invalid"].exit, done.stderr
    assert "hint: " in done.stderr
    for words, code in (
        (("tasks", "show", "t_absent"), "not_found"),
        (("tasks", "submit"), "invalid_request"),
        (("tasks", "submit", "--type", "x", "--input", "{"), "invalid_request"),
        (("tasks", "submit", "--type", "x", "--deadline", "soon"), "invalid_request"),
        (("tasks", "submit", "--type", "x", "--after", "t_absent"), "task_invalid"),
        (("approvals", "show", "a_absent"), "not_found"),
        (("executors", "drain", "absent"), "not_found"),
        (("knowledge", "query", "CREATE (e:Entry {id: 'x'})"), "query_refused"),
        (("schedules", "put", "n", "--type", "x"), "invalid_request"),
        (("schedules", "delete", "absent"), "not_found"),
    ):
        done = run(box, *words)
        assert done.returncode == OUTCOMES[code].exit, (words, done.stderr)
        assert f"({code})" in done.stderr
        assert done.stdout == ""


def test_tasks_are_steered(box: RunningBox) -> None:
    (task,) = rows(run(box, "tasks", "submit", "--type", "nobody.here", "--json"))
    assert "nobody takes nobody.here now" in run(box, "tasks", "submit", "--type", "nobody.here").stderr
    assert [one["status"] for one in rows(run(box, "tasks", "pause", task["id"], "--json"))] == ["paused"]
    assert [one["status"] for one in rows(run(box, "tasks", "resume", task["id"], "--json"))] == ["pending"]
    assert rows(run(box, "tasks", "cancel", task["id"], "--reason", "twice", "--json"))[0]["error"]["code"] == "cancelled"
    assert run(box, "tasks", "watch", task["id"]).returncode == OUTCOMES["cancelled"].exit
    assert [one["status"] for one in rows(run(box, "tasks", "retry", task["id"], "--json"))] == ["pending"]
    assert rows(run(box, "tasks", "fork", task["id"], "--json"))[0]["id"] != task["id"]
    assert run(box, "tasks", "pause", task["id"]).returncode == 0
    assert run(box, "tasks", "retry", task["id"]).returncode == OUTCOMES["task_state"].exit
    assert task["id"] in run(box, "tasks", "list", "--status", "paused").stdout


def test_a_person_answers_an_agent(box: RunningBox) -> None:
    with httpx.Client(base_url=box.url, headers={"authorization": f"Bearer {box.admin_key}"}) as agent:
        capabilities = {"supportedTaskTypes": ["cleaning"]}
        agent.post("/api/executors", json={"id": "cleaner", "type": "claude_opus", "capabilities": capabilities})
        rows(run(box, "tasks", "submit", "--type", "cleaning", "--json"))
        held = agent.post("/api/executors/cleaner/claim", json={"waitSeconds": 10}).json()["task"]
        body = {"token": held["fencingToken"], "action": "file.delete", "arguments": {"path": "/a"}}
        asked = agent.post(f"/api/tasks/{held['id']}/approvals", json=body).json()
        assert asked["id"] in run(box, "approvals", "list").stdout
        assert '{"path": "/a"}' in run(box, "approvals", "show", asked["id"]).stdout
        decided = run(box, "approvals", "approve", asked["id"], "--arguments", '{"path": "/b"}', "--json")
        assert rows(decided)[0]["status"] == "modified"
        assert agent.get(f"/api/approvals/{asked['id']}").json()["modifiedArguments"] == {"path": "/b"}
    assert run(box, "approvals", "policy", "default", "--action", "file.*", "--mode", "deny").returncode == 0
    assert any(rule["action"] == "file.*" for rule in rows(run(box, "approvals", "policy", "default", "--json")))
    assert run(box, "approvals", "policy", "default", "--action", "file.*", "--remove").returncode == 0
    assert "cleaner" in run(box, "executors", "list").stdout
    assert rows(run(box, "executors", "drain", "cleaner", "--json"))[0]["status"] == "draining"
    assert rows(run(box, "executors", "enable", "cleaner", "--json"))[0]["status"] == "online"


def test_knowledge_and_schedules(box: RunningBox) -> None:
    (entry,) = rows(run(box, "knowledge", "store", "North pays in roubles", "--key", "north", "--json"))
    assert entry["id"] in run(box, "knowledge", "search", "roubles").stdout
    assert rows(run(box, "knowledge", "query", "MATCH (e:Entry) RETURN e.id AS id", "--json"))
    assert run(box, "schedules", "put", "nightly", "--cron", "0 3 * * *", "--type", "workflow.steps").returncode == 0
    assert "nightly" in run(box, "schedules", "list").stdout
    assert run(box, "schedules", "delete", "nightly").returncode == 0


@pytest.mark.parametrize("group", ["tasks", "approvals", "executors", "knowledge", "schedules"])
def test_every_command_has_an_example_in_its_help(group: str) -> None:
    commands: Any = get_command(app)
    for name, command in commands.commands[group].commands.items():
        assert "Example" in (command.help or ""), f"{group} {name}"


def test_a_watch_survives_that_the_box_goes_away_and_comes_back_elsewhere(box: RunningBox) -> None:
    (task,) = rows(run(box, "tasks", "submit", "--type", "nobody.there", "--json"))
    away = threading.Event()
    opened = 0

    def open_box() -> AbstractContextManager[BoxClient]:
        @contextmanager
        def opening() -> Iterator[BoxClient]:
            nonlocal opened
            opened += 1
            if away.is_set():
                raise ApplianceError("unavailable", "no box serves here")
            headers = {"authorization": f"Bearer {box.admin_key}"}
            with httpx.Client(base_url=box.url, headers=headers, transport=Cut(away), timeout=10) as http:
                yield BoxClient(http)

        return opening()

    states: list[str] = []
    with httpx.Client(base_url=box.url, headers={"authorization": f"Bearer {box.admin_key}"}) as steering:
        for scene in Watch(open_box, task["id"]).scenes():
            states.append("away" if scene.away else str(scene.tasks[0]["status"]))
            if states == ["pending"]:
                away.set()
            if states.count("away") == 2 and away.is_set():
                steering.post(f"/api/tasks/{task['id']}/cancel")
                away.clear()
    assert states[0] == "pending"
    assert states[-1] == "failed"
    assert "away" in states
    assert opened >= 3


class Cut(httpx.HTTPTransport):
    """A way to the box that breaks while ``away`` is set."""

    def __init__(self, away: threading.Event) -> None:
        super().__init__()
        self._away = away

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._away.is_set():
            raise httpx.ConnectError("cut")
        return super().handle_request(request)
