"""The live picture of a watch, and waiting without one. Owns the screen; what happens comes from ``task_watch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from appliance.cli.task_watch import OpenBox, Scene, Watch
from appliance.cli.tasks_view import TERMINAL, clock, event_text, graph_text, shown, summary
from appliance.identity.console import say

_PER_SECOND: Final = 8


def watch_live(open_box: OpenBox, task_id: str, *, whole: bool, as_json: bool) -> list[dict[str, Any]]:
    """Show a DAG until it has ended: a picture on a terminal, a line an event elsewhere. The tasks as they were at the end."""
    watch = Watch(open_box, task_id, whole=whole)
    console = Console(highlight=False)
    if as_json or not console.is_terminal:
        return _watch_lines(watch, as_json=as_json)
    last: Sequence[Mapping[str, Any]] = ()
    with Live(console=console, refresh_per_second=_PER_SECOND, transient=False) as live:
        for scene in watch.scenes():
            live.update(_picture(scene, console.width, console.height))
            last = scene.tasks
    return [dict(task) for task in last]


def wait_for(open_box: OpenBox, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The tasks ``ids`` once all of them have ended; one line on stderr whenever the sum changes."""
    ended: dict[str, dict[str, Any]] = {}
    for task_id in ids:
        if task_id in ended:
            continue
        before = ""
        for scene in Watch(open_box, task_id, whole=False).scenes():
            now = f"the box is away: {shown(scene.away)}" if scene.away else summary(scene.tasks)
            if now != before:
                say(now)
                before = now
            ended.update({task["id"]: dict(task) for task in scene.tasks if task["status"] in TERMINAL})
    return [ended[task_id] for task_id in ids]


def _watch_lines(watch: Watch, *, as_json: bool) -> list[dict[str, Any]]:
    away: str | None = None
    before: dict[str, str] = {}
    last: Sequence[Mapping[str, Any]] = ()
    for scene in watch.scenes():
        if scene.away != away:
            say(f"the box is away ({shown(scene.away)}); waiting for it" if scene.away else "the box is back")
            away = scene.away
        for event in scene.new:
            print(orjson.dumps(event).decode() if as_json else f"{clock(event['at'])}  {_named(event, scene.tasks)}  {event_text(event)}", flush=True)
        now = {str(task["id"]): str(task["status"]) for task in scene.tasks}
        if now != before:
            say(summary(scene.tasks))
        before, last = now, scene.tasks
    return [dict(task) for task in last]


def _picture(scene: Scene, width: int, height: int) -> Group:
    drawn = graph_text(scene.tasks, width)
    room = max(5, height - 12)
    lines = drawn.split("\n", allow_blank=True)
    more = [Text(f"… {len(lines) - room} more lines; see: appliance tasks graph", style="bright_black")] if len(lines) > room else []
    state = Text(f"the box is away: {shown(scene.away)}; waiting for it", style="yellow") if scene.away else Text(summary(scene.tasks), style="bold")
    told = [
        Text(f"{clock(event['at'])[11:]}  {_named(event, scene.tasks)}  {event_text(event, actor=False)}"[:width], style="bright_black")
        for event in scene.events
    ]
    return Group(*lines[:room], *more, Text(), state, Text(), *told)


def _named(event: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> str:
    name = next((task.get("key") or task["type"] for task in tasks if task["id"] == event["taskId"]), event["taskId"])
    return f"{shown(name):<16}"
