"""``appliance usage``: requests, tokens and cost, from the running box."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from appliance.cli.box_client import box_client


class Dimension(StrEnum):
    """What makes a row."""

    day = "day"
    user = "user"
    space = "space"
    thread = "thread"
    task = "task"
    model = "model"


_COUNTS = {
    "requests": "requests",
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "cached_tokens": "cached",
    "saved_tokens": "saved",
    "cache_hits": "hits",
    "tool_calls": "tools",
    "cost": "cost",
}


def usage(
    *,
    by: Annotated[Dimension, typer.Option(help="What makes a row.")] = Dimension.day,
    since: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Last day; today when left out.")] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="The last days, when --since is left out.")] = 30,
    subject: Annotated[
        str | None, typer.Option(help="One account, user:anna. Left out: everyone's for an administrator's key, else your own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show what was used and what it cost: requests, tokens, what caches saved, tool calls.

    Examples: `appliance usage --by model` · `appliance usage --by user --since 2026-01-01 --csv`
    """
    with box_client() as box:
        whose = subject or ("*" if "admin" in box.get("/api/me")["roles"] else None)
        asked = {"by": by.value, "since": since, "until": until, "days": days, "subject": whose}
        if as_csv:
            given = {name: value for name, value in {**asked, "format": "csv"}.items() if value is not None}
            typer.echo(box.bytes(f"/api/usage?{urlencode(given)}").decode(), nl=False)
            return
        answer = box.get("/api/usage", **asked)
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _show(answer)


def _show(answer: dict[str, Any]) -> None:
    table = Table(title=f"{answer['since']} … {answer['until']}", box=SIMPLE_HEAD)
    table.add_column(answer["by"], no_wrap=True)
    for title in _COUNTS.values():
        table.add_column(title, justify="right", overflow="fold")
    for row in answer["data"]:
        table.add_row(row["key"] or "–", *(f"{row[name]:,.4f}" if name == "cost" else f"{row[name]:,}" for name in _COUNTS))
    Console().print(table)
