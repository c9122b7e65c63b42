"""``appliance executors``: who does the work."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import orjson
import typer

from appliance.cli.box_client import box_client
from appliance.cli.tasks_view import moment, shown
from appliance.identity.console import print_rows, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Executors: list, show, drain, disable, enable.\n\nExamples: appliance executors list · appliance executors drain agent-7",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout, one value a line.")]
ExecutorArgument = Annotated[str, typer.Argument(help="Id of the executor.")]


@app.command("list")
def list_executors(*, as_json: JsonFlag = False) -> None:
    """List executors with their load and what the box has seen of them.

    Example: `appliance executors list --json`
    """
    with box_client() as box:
        found = box.get("/api/executors")["data"]
    if as_json:
        for one in found:
            print(orjson.dumps(one).decode())
        return
    rows = [
        {
            "id": one["id"],
            "status": one["status"],
            "type": one["type"],
            "load": f"{one['currentLoad']}/{one['maxLoad']}",
            "completed": one["performanceMetrics"]["completed"],
            "failed": one["performanceMetrics"]["failed"],
            "seconds": f"{one['performanceMetrics']['averageLatency']:.2f}",
            "seen": moment(one["seenAt"]) if one["seenAt"] else None,
            "takes": shown(", ".join(one["capabilities"]["supportedTaskTypes"])),
        }
        for one in found
    ]
    print_rows(rows, as_json=False)


@app.command("show")
def show(executor: ExecutorArgument, *, as_json: JsonFlag = False) -> None:
    """Everything about one executor: what it takes, how fast it says it is, what the box has seen of it.

    Example: `appliance executors show local_llm@box`
    """
    with box_client() as box:
        found = next((one for one in box.get("/api/executors")["data"] if one["id"] == executor), None)
    if found is None:
        raise ApplianceError("not_found", f"no executor {executor!r}", hint="see: appliance executors list")
    if as_json:
        print(orjson.dumps(found).decode())
        return
    says, seen = found["capabilities"]["performanceProfile"], found["performanceMetrics"]
    facts = {
        "id": found["id"],
        "type": found["type"],
        "status": found["status"],
        "version": shown(found["version"]),
        "load": f"{found['currentLoad']}/{found['maxLoad']}",
        "takes": shown(", ".join(found["capabilities"]["supportedTaskTypes"])),
        "context window": found["capabilities"]["contextWindowSize"] or "not stated",
        "seconds a task, measured": _figure(says["averageLatency"]),
        "tasks a second, measured": _figure(says["throughput"]),
        "cost a task, by prices": _figure(says["costPerTask"]),
        "completed, failed": f"{seen['completed']}, {seen['failed']}",
        "seconds a task, seen": _figure(seen["averageLatency"]),
    }
    for name, value in facts.items():
        print(f"{name:<26}{value}")


def _figure(value: float) -> str:
    return f"{value:.4g}" if value else "not known"


@app.command("drain")
def drain(executor: ExecutorArgument, *, as_json: JsonFlag = False) -> None:
    """Give an executor no new tasks; it finishes what it has.

    Example: `appliance executors drain agent-7`
    """
    _set(executor, "draining", "gets no new tasks", as_json=as_json)


@app.command("disable")
def disable(executor: ExecutorArgument, *, as_json: JsonFlag = False) -> None:
    """Stop an executor: it gets nothing, and what it holds goes to others.

    Example: `appliance executors disable agent-7`
    """
    _set(executor, "disabled", "is disabled", as_json=as_json)


@app.command("enable")
def enable(executor: ExecutorArgument, *, as_json: JsonFlag = False) -> None:
    """Let an executor work again.

    Example: `appliance executors enable agent-7`
    """
    _set(executor, "online", "works again", as_json=as_json)


def _set(executor: str, status: str, told: str, *, as_json: bool) -> None:
    with box_client() as box:
        changed = box.patch(f"/api/executors/{quote(executor, safe='')}", {"status": status})
    say(f"executor {executor} {told}")
    if as_json:
        print(orjson.dumps(changed).decode())
