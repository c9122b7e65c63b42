"""``appliance tasks``: submit, list, read and control durable tasks."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
import typer
from rich.console import Console

from appliance.cli.audit import plural
from appliance.cli.box_client import BoxClient, box_client
from appliance.cli.task_files import json_argument, read_tasks, with_fresh_keys
from appliance.cli.task_live import wait_for, watch_live
from appliance.cli.tasks_view import graph_text, history_text, shown, task_row, task_text
from appliance.identity.console import print_rows, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Durable tasks: submit, list, show, watch, graph, retry, cancel, pause, resume, fork.\n\n"
    "Examples: appliance tasks submit demo/tasks/quarter_report.json --wait · appliance tasks watch t_4f… · appliance tasks show t_4f…",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout, one value a line.")]
TaskArgument = Annotated[str, typer.Argument(help="Id of the task (t_…).")]
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("submit")
def submit(
    file: Annotated[str | None, typer.Argument(help="A file of tasks, JSON or TOML; - reads stdin.")] = None,
    *,
    type_: Annotated[str | None, typer.Option("--type", help="One task of this type instead of a file.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    input_: Annotated[str | None, typer.Option("--input", help="Its input: JSON, or @FILE.")] = None,
    after: Annotated[list[str] | None, typer.Option("--after", help="Id of a task that must be completed first; repeat for more.")] = None,
    key: Annotated[str | None, typer.Option(help="Your name for it: the same key again is the same task.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=100, help="Higher goes first; 50 when absent.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Fail after: 90s, 30m, 2h, 1d, or 2026-01-31T18:00:00+03:00.")] = None,
    space: Annotated[str | None, typer.Option(help="Where the tasks live.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make new tasks also when the keys of the file were used before.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended; fails when one failed.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Submit a DAG from a file, or one task. All tasks are made, or none.

    The same file again gives the tasks that are there already (by their keys); --fresh makes new ones.

    Examples:
        appliance tasks submit demo/tasks/quarter_report.json --wait
        appliance tasks submit --type text.word_count --input '{"text": "ten boxes"}' --priority 80
        cat dag.toml | appliance tasks submit - --json
    """
    if (file is None) == (type_ is None):
        raise ApplianceError("invalid_request", "name a file or --type, and not both", hint="see: appliance tasks submit --help")
    common = {"space": space, "priority": priority, "deadline": _deadline(deadline)}
    given = {name: value for name, value in common.items() if value is not None}
    if file is not None:
        if input_ is not None or key is not None or description:
            raise ApplianceError("invalid_request", "--input, --key and --description go with --type", hint="write them into the file")
        tasks = [task | given for task in read_tasks(file)]
        tasks = [task | {"dependencies": [*task.get("dependencies", ()), *(after or ())]} for task in tasks]
        tasks = with_fresh_keys(tasks) if fresh else tasks
    else:
        one = {"type": type_, "description": description, "dependencies": after or [], "inputData": json_argument(input_, "--input") or {}}
        tasks = [one | given | ({"key": key} if key is not None else {})]
    with box_client() as box:
        made = box.post("/api/tasks", {"tasks": tasks})["data"]
        lonely = _without_executor(box, made)
    say(f"{plural(len(made), 'task')} submitted; see: appliance tasks watch {made[-1]['id']}")
    if lonely:
        say(f"nobody takes {', '.join(lonely)} now: such tasks wait until an executor that does is there (appliance executors list)")
    if wait:
        made = wait_for(box_client, [task["id"] for task in made])
    _print(made, as_json=as_json)
    if wait:
        _fail_when_failed(made)


@app.command("list")
def list_tasks(
    *,
    space: Annotated[str | None, typer.Option(help="Only this space.")] = None,
    status: Annotated[
        str | None, typer.Option(help="pending, assigned, executing, awaiting_approval, paused, completed, failed, requires_continuation.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    executor: Annotated[str | None, typer.Option(help="Only what this executor holds.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only children of this task.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List tasks, newest first.

    Examples: `appliance tasks list --status failed` · `appliance tasks list --space legal --limit 500 --json`
    """
    found: list[dict[str, Any]] = []
    before = None
    with box_client() as box:
        while len(found) < limit:
            asked = min(500, limit - len(found))
            page = box.get("/api/tasks", space=space, status=status, type=type_, executor=executor, parent=parent, before=before, limit=asked)
            found += page["data"]
            before = page["next"]
            if before is None:
                break
    _print(found, as_json=as_json)
    if before is not None and not as_json:
        say(f"there are more; see: --limit {limit * 2}")


@app.command("show")
def show(
    task: TaskArgument,
    *,
    full: Annotated[bool, typer.Option("--full", help="Do not cut long values.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show a task with its whole history.

    Examples: `appliance tasks show t_4f…` · `appliance tasks show t_4f… --full --json`
    """
    with box_client() as box:
        found = box.get(_path(task))
        events = box.get(_path(task, "history"))["data"]
    if as_json:
        _print_json(found | {"history": events})
        return
    print(task_text(found, full=full))
    print(f"\nhistory ({plural(len(events), 'event')})")
    for line in history_text(events, full=full):
        print(f"  {line}")


@app.command("watch")
def watch(
    task: TaskArgument,
    *,
    alone: Annotated[bool, typer.Option("--alone", help="End with this task, not with its whole DAG.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event of the DAG as a line of JSON.")] = False,
) -> None:
    """Watch a task and its whole DAG until it has ended. When the box restarts, the watch goes on.

    Fails (with the status of the error) when the task failed.

    Examples: `appliance tasks watch t_4f…` · `appliance tasks watch t_4f… --json`
    """
    tasks = watch_live(box_client, task, whole=not alone, as_json=as_json)
    _fail_when_failed([one for one in tasks if one["id"] == task])


@app.command("graph")
def graph(
    task: TaskArgument,
    *,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write a picture to this file instead.")] = None,
    width: Annotated[int | None, typer.Option(min=20, help="Cells of a line; those of the terminal when absent.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw the DAG around a task.

    Examples: `appliance tasks graph t_4f…` · `appliance tasks graph t_4f… --svg dag.svg`
    """
    with box_client() as box:
        if svg is not None:
            _write(svg, box.bytes(_path(task, "graph.svg")))
            say(f"written: {svg}")
            return
        tasks = box.get(_path(task, "graph"))["data"]
    if as_json:
        _print(tasks, as_json=True)
        return
    console = Console(highlight=False, width=width or (None if sys.stdout.isatty() else 160))
    console.print(graph_text(tasks, console.width), soft_wrap=True)


@app.command("retry")
def retry(task: TaskArgument, *, as_json: JsonFlag = False) -> None:
    """Let a failed task try again, with those that failed because of it. Steps that were finished stay finished.

    Example: `appliance tasks retry t_4f…`
    """
    _control(task, "retry", "tries again", None, as_json=as_json)


@app.command("cancel")
def cancel(task: TaskArgument, *, reason: Annotated[str, typer.Option(help="For the history.")] = "", as_json: JsonFlag = False) -> None:
    """End a task; its executor is told, and what depends on it fails.

    Example: `appliance tasks cancel t_4f… --reason "asked twice"`
    """
    _control(task, "cancel", "cancelled", {"reason": reason}, as_json=as_json)


@app.command("pause")
def pause(task: TaskArgument, *, as_json: JsonFlag = False) -> None:
    """Take a task from its executor and hold it.

    Example: `appliance tasks pause t_4f…`
    """
    _control(task, "pause", "paused", None, as_json=as_json)


@app.command("resume")
def resume(task: TaskArgument, *, as_json: JsonFlag = False) -> None:
    """Go on after a pause.

    Example: `appliance tasks resume t_4f…`
    """
    _control(task, "resume", "goes on", None, as_json=as_json)


@app.command("fork")
def fork(
    task: TaskArgument,
    *,
    checkpoint: Annotated[
        str | None, typer.Option(help="Begin at this checkpoint; at the input, with the steps finished so far, when absent.")
    ] = None,
    input_: Annotated[str | None, typer.Option("--input", help="Another input: JSON, or @FILE.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a new task from where an old one stood.

    Example: `appliance tasks fork t_4f… --checkpoint c_12…`
    """
    body = {"checkpointId": checkpoint} | ({} if input_ is None else {"inputData": json_argument(input_, "--input")})
    _control(task, "fork", "made by forking", body, as_json=as_json)


def _without_executor(box: BoxClient, tasks: list[dict[str, Any]]) -> list[str]:
    """Types of ``tasks`` that no executor takes; none when the caller may not see executors."""
    try:
        executors = box.get("/api/executors")["data"]
    except ApplianceError:
        return []
    taken = {kind for one in executors if one["status"] == "online" for kind in one["capabilities"]["supportedTaskTypes"]}
    waiting = {task["type"] for task in tasks if task["status"] == "pending"}
    return [] if "*" in taken else sorted(waiting - taken)


def _control(task: str, verb: str, told: str, body: object, *, as_json: bool) -> None:
    with box_client() as box:
        changed = box.post(_path(task, verb), body)
    say(f"task {changed['id']} {told}")
    _print([changed], as_json=as_json)


def _print(tasks: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for task in tasks:
            _print_json(task)
    else:
        print_rows([task_row(task) for task in tasks], as_json=False)


def _print_json(value: object) -> None:
    print(orjson.dumps(value).decode())


def _fail_when_failed(tasks: list[dict[str, Any]]) -> None:
    for task in tasks:
        error = task.get("error")
        if task["status"] == "failed" and error:
            raise ApplianceError(_code(error), f"task {task['id']} failed: {shown(error['message'])}", hint=f"see: appliance tasks show {task['id']}")


def _code(error: dict[str, Any]) -> str:
    code = str(error.get("code"))
    return code if code in {"cancelled", "task_invalid", "result_invalid", "effect_unknown"} else "executor_failed"


def _path(task: str, tail: str = "") -> str:
    return f"/api/tasks/{quote(task, safe='')}" + (f"/{tail}" if tail else "")


def _deadline(text: str | None) -> float | None:
    """Unix seconds of ``90s``, ``2h`` or a date with a time zone."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.replace(".", "", 1).isdigit():
        return time.time() + float(number) * _UNITS[unit]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ApplianceError("invalid_request", f"cannot read the deadline {text!r}", hint="write 90s, 30m, 2h, 1d, or 2026-01-31T18:00:00+03:00")
    return moment.timestamp()


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise ApplianceError("invalid_request", f"cannot write {path}: {exc.strerror}", hint="check the path") from exc
