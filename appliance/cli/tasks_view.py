"""How tasks and their histories look in a terminal. Owns words, times and colours; knows no box."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.style import Style
from rich.text import Text

from appliance.cli.graph_drawing import MARKS, draw, name_of

COLOURS: Final[Mapping[str, str]] = {
    "pending": "bright_black",
    "assigned": "cyan",
    "executing": "blue",
    "awaiting_approval": "yellow",
    "paused": "magenta",
    "requires_continuation": "bright_yellow",
    "completed": "green",
    "failed": "red",
}
TERMINAL: Final = frozenset({"completed", "failed"})
_MOST_VALUE: Final = 160
_SHOWN_ABOVE: Final = frozenset({"retry", "space", "owner", "description", "incarnation"})  # of an event; the task itself says them
_TIMES: Final = frozenset({"leaseUntil", "notBefore", "expiresAt", "deadline", "due"})
_LIST_FIELDS: Final = ("id", "status", "space", "type", "key", "priority", "executor", "progress", "created")


def task_row(task: Mapping[str, Any]) -> dict[str, object]:
    """A task as a line of a list."""
    values = (
        task["id"],
        f"{MARKS.get(task['status'], '·')} {task['status']}",
        task["space"],
        task["type"],
        shown(task.get("key")),
        task["priority"],
        task.get("assignedExecutor"),
        f"{task.get('progress') or 0:.0%}",
        moment(task["createdAt"]),
    )
    return dict(zip(_LIST_FIELDS, values, strict=True))


def task_text(task: Mapping[str, Any], *, full: bool = False) -> str:
    """Everything about one task, a fact a line."""
    facts: list[tuple[str, object]] = [
        ("task", f"{task['id']}  {shown(name_of(task))}"),
        ("status", _status(task)),
        ("type", f"{task['type']}" + (f" on {task['executorType']}" if task.get("executorType") else "")),
        ("about", shown(task.get("description"))),
        ("where", f"space {task['space']}, of {task['owner']}, priority {task['priority']}"),
        ("made", moment(task["createdAt"])),
        ("changed", moment(task["updatedAt"])),
        ("deadline", moment(task.get("deadline"))),
        ("not before", moment(task.get("notBefore"))),
        ("executor", task.get("assignedExecutor")),
        ("note", shown(task.get("note"))),
        ("parent", task.get("parent")),
        ("depends on", ", ".join(task.get("dependencies") or ())),
        ("waits for", ", ".join(task.get("blockedBy") or ())),
        ("checkpoints", ", ".join(task.get("checkpoints") or ())),
        ("input", value_text(task.get("inputData"), full=full)),
        ("result", value_text(task["result"], full=full) if task["status"] == "completed" else None),
        ("error", _error(task.get("error"), full=full)),
    ]
    return "\n".join(f"{name:<12}{value}" for name, value in facts if value not in (None, "", "{}"))


def history_text(events: Sequence[Mapping[str, Any]], *, full: bool = False) -> list[str]:
    """One line an event: when, how long after the one before, what, by whom, its fields."""
    lines, before = [], events[0]["at"] if events else 0.0
    for event in events:
        lines.append(f"{clock(event['at'])}  {_since(event['at'] - before):>9}  {event_text(event, full=full)}")
        before = event["at"]
    return lines


def event_text(event: Mapping[str, Any], *, full: bool = False, actor: bool = True) -> str:
    """What happened, without the time."""
    by = f"  by {shown(event['actor'])}" if actor and event.get("actor") else ""
    fields = event.get("data")
    told = [_field(name, value, full=full) for name, value in fields.items() if _worth(name, value, full=full)] if isinstance(fields, dict) else []
    return "  ".join([f"{event['name']:<20}{by}", *told])


def graph_text(tasks: Sequence[Mapping[str, Any]], width: int) -> Text:
    """The DAG in colours."""
    return Text.from_ansi(draw(tasks, width, _painted), no_wrap=True, overflow="crop")


def summary(tasks: Iterable[Mapping[str, Any]]) -> str:
    """``3 completed, 1 executing``."""
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task["status"]] = counts.get(task["status"], 0) + 1
    return ", ".join(f"{counts[status]} {status}" for status in MARKS if status in counts) or "no tasks"


def value_text(value: object, *, full: bool = False) -> str:
    """JSON on one line, cut unless ``full``."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    text = shown(text)
    return text if full or len(text) <= _MOST_VALUE else text[: _MOST_VALUE - 1] + "…"


def shown(text: object) -> str:
    """``text`` without characters that could move the cursor or change colours: it may come from anyone."""
    return "" if text is None else "".join(letter if letter.isprintable() else " " for letter in str(text))


def moment(seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the second."""
    return None if seconds is None else _utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(seconds: float) -> str:
    """Date and time in UTC, to the millisecond."""
    return _utc(seconds).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(0.0, min(seconds, 253_402_300_799.0)), UTC)


def _worth(name: str, value: object, *, full: bool) -> bool:
    return value not in (None, "", [], {}) and (full or name not in _SHOWN_ABOVE)


def _field(name: str, value: object, *, full: bool) -> str:
    shown_value = moment(value) if name in _TIMES and isinstance(value, int | float) else value_text(value, full=full)
    return f"{name}={shown_value}"


def _since(seconds: float) -> str:
    return f"+{seconds:.3f} s" if abs(seconds) < 100 else f"+{seconds:.0f} s"


def _status(task: Mapping[str, Any]) -> str:
    facts = [f"{task['progress']:.0%}"] if task.get("progress") else []
    facts += [f"attempt {task['attempt']}"] if task.get("attempt") else []
    return f"{MARKS.get(task['status'], '·')} {task['status']}" + (f" ({', '.join(facts)})" if facts else "")


def _error(error: Mapping[str, Any] | None, *, full: bool) -> str | None:
    if not error:
        return None
    more = error.get("diagnostics")
    return f"{shown(error['message'])} ({error['code']})" + (f"  {value_text(more, full=full)}" if more else "")


def _painted(text: str, status: str) -> str:
    return Style(color=COLOURS.get(status), bold=status == "executing").render(text)
