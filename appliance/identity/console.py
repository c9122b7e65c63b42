"""The operator's way in: identity opened straight on a home, with the rights of whoever may read its files.

Used by the CLI, also while the box runs: the database is shared, the audit log takes turns under its lock, and the running box notices
within a second. The audit log names the operator as ``cli:<login name>``.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from appliance.audit.bootstrap import open_audit
from appliance.identity.bootstrap import DATABASE_NAME, open_identity
from appliance.identity.directory import Directory
from appliance.identity.principal import ADMIN, Principal, SpaceRole
from appliance.kit.errors import ApplianceError

_Result = TypeVar("_Result")


def home_folder() -> Path:
    """``$APPLIANCE_HOME``, or ``./var``."""
    return Path(os.environ.get("APPLIANCE_HOME") or "var")


@asynccontextmanager
async def open_directory(home: Path) -> AsyncIterator[tuple[Directory, Principal]]:
    """The directory of an existing home and the principal of the operator, who owns every space.

    Raises:
        ApplianceError: ``home_invalid`` when ``home`` was never initialised.
    """
    if not (home / DATABASE_NAME).exists():
        raise ApplianceError("home_invalid", f"no appliance home in {home}", hint="set APPLIANCE_HOME, or start the box once (make up)")
    async with await open_audit(home) as audit, open_identity(home, audit) as identity:
        yield identity.directory, await _operator(identity.directory)


def run(work: Callable[[Directory, Principal], Awaitable[_Result]]) -> _Result:
    """Run one operator's action on the home."""

    async def main() -> _Result:
        async with open_directory(home_folder()) as (directory, actor):
            return await work(directory, actor)

    return asyncio.run(main())


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """A list for people (aligned columns, never cut) or scripts (``{"data": [...]}``)."""
    if as_json:
        print_json({"data": list(rows)})
        return
    if not rows:
        say("none")
        return
    lines = [tuple(rows[0]), *(tuple(map(_cell, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def say(text: str) -> None:
    """One line for people, on stderr."""
    sys.stderr.write(f"{text}\n")


def day(seconds: int | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


async def _operator(directory: Directory) -> Principal:
    root = Principal(f"cli:{_login()}", "service", frozenset({ADMIN}))
    names = await directory.space_names(root)
    return Principal(root.subject, root.kind, root.roles, spaces=dict.fromkeys(names, SpaceRole.OWNER))


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
