"""``appliance trust``: keys and roots of trust of a build station."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Keys and roots of trust: init, show, rotate, sign.")


@app.callback()
def trust() -> None:
    """Keys and roots of trust."""
