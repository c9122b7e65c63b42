"""``appliance schedules``: tasks that are made by the clock or by events."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer

from appliance.cli.box_client import box_client
from appliance.cli.task_files import json_argument
from appliance.cli.tasks_view import moment, shown, value_text
from appliance.identity.console import print_rows, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    no_args_is_help=True,
    help="Schedules: list, put, delete.\n\n"
    "Examples: appliance schedules put nightly --cron '0 3 * * *' --type workflow.steps · appliance schedules list",
)
JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on stdout, one value a line.")]
NameArgument = Annotated[str, typer.Argument(help="Name of the schedule.")]


@app.command("list")
def list_schedules(*, space: Annotated[str | None, typer.Option(help="Only this space.")] = None, as_json: JsonFlag = False) -> None:
    """List schedules: what starts them, when they fired last and fire next.

    Example: `appliance schedules list --space legal`
    """
    with box_client() as box:
        found = box.get("/api/schedules", space=space)["data"]
    if as_json:
        for one in found:
            print(orjson.dumps(one).decode())
        return
    print_rows([_row(one) for one in found], as_json=False)


@app.command("put")
def put(
    name: NameArgument,
    *,
    type_: Annotated[str, typer.Option("--type", help="Type of the task that is made.")],
    cron: Annotated[str | None, typer.Option(help="Minute, hour, day, month, weekday: '0 7 * * 1-5'.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of the cron line, for example Europe/Moscow; UTC when absent.")] = None,
    every: Annotated[float | None, typer.Option(min=1, help="Seconds between two tasks.")] = None,
    event: Annotated[str | None, typer.Option(help="Event that starts it, for example TaskFailed.")] = None,
    event_type: Annotated[str | None, typer.Option(help="Only events of tasks of this type.")] = None,
    space: Annotated[str, typer.Option(help="Where the schedule and its tasks live.")] = "default",
    description: Annotated[str, typer.Option(help="What the task is for.")] = "",
    input_: Annotated[str | None, typer.Option("--input", help="Input of the task: JSON, or @FILE.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=100)] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Make a schedule, or change the one of that name.

    Examples: `appliance schedules put report --cron '0 7 * * 1-5' --timezone Europe/Moscow --type workflow.steps` · `… put alarm --event TaskFailed --type text.word_count`
    """
    if sum(given is not None for given in (cron, every, event)) != 1:
        raise ApplianceError("invalid_request", "name one of --cron, --every, --event", hint="see: appliance schedules put --help")
    trigger: dict[str, Any] = (
        {"cron": cron, "timezone": timezone}
        if cron is not None
        else {"everySeconds": every}
        if every is not None
        else {"event": event, "taskType": event_type}
    )
    spec = {"type": type_, "space": space, "description": description, "priority": priority, "inputData": json_argument(input_, "--input") or {}}
    with box_client() as box:
        made = box.put(
            f"/api/schedules/{quote(name, safe='')}", {"trigger": {key: value for key, value in trigger.items() if value is not None}, "spec": spec}
        )
    say(f"schedule {name} of {space} set")
    if as_json:
        print(orjson.dumps(made).decode())


@app.command("delete")
def delete(name: NameArgument, *, space: Annotated[str, typer.Option(help="Where it lives.")] = "default") -> None:
    """Remove a schedule; tasks that it made stay.

    Example: `appliance schedules delete nightly`
    """
    with box_client() as box:
        box.delete(f"/api/schedules/{quote(space, safe='')}/{quote(name, safe='')}")
    say(f"schedule {name} of {space} removed")


def _row(one: dict[str, Any]) -> dict[str, object]:
    """Times as people read them, objects as JSON on one line."""
    row: dict[str, object] = {}
    for name, value in one.items():
        if isinstance(value, int | float) and name.lower().endswith(("at", "fired", "fires", "next", "last", "due")):
            row[name] = moment(value)
        else:
            row[name] = value_text(value) if isinstance(value, dict | list) else None if value is None else shown(value)
    return row
