"""``appliance bundle …``: verbs of ``appliance.bundle.read``."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance bundle``."""
