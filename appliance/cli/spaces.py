"""``appliance spaces``: rooms for documents, and who may enter them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Annotated

import typer

from appliance.cli.audit import plural
from appliance.home import Home
from appliance.identity import domain
from appliance.identity.console import home_folder, print_rows, run, say
from appliance.identity.directory import Directory
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    name="spaces",
    help="Add, list and remove spaces; grant and revoke access.\n\nExample: appliance spaces grant legal anna reader",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Name = Annotated[str, typer.Argument(help="a-z 0-9 . _ -, up to 63 characters.")]


@app.command("add")
def add(name: Name, title: Annotated[str, typer.Option(help="What people see.")] = "") -> None:
    """Add a space. Administrators own every space; others need `grant`.

    Example: `appliance spaces add legal --title "Contracts"`
    """
    run(lambda directory, actor: directory.add_space(actor, name, title))
    say(f"space {name} added")


@app.command("list")
def list_spaces(*, as_json: AsJson = False) -> None:
    """List spaces with their members.

    Example: `appliance spaces list --json`
    """
    print_rows(run(_rows), as_json=as_json)


@app.command("grant")
def grant(name: Name, user: str, role: Annotated[str, typer.Argument(help="reader, editor or owner.")]) -> None:
    """Give a user a role in a space, replacing the one held.

    Example: `appliance spaces grant legal anna editor`
    """
    level = domain.space_role(role)
    run(lambda directory, actor: directory.grant(actor, name, user, level))
    say(f"{user} is now {role} of {name}")


@app.command("revoke")
def revoke(name: Name, user: str) -> None:
    """Take a user out of a space, at once.

    Example: `appliance spaces revoke legal anna`
    """
    run(lambda directory, actor: directory.revoke(actor, name, user))
    say(f"{user} no longer belongs to {name}")


@app.command("remove")
def remove(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also when it holds documents: they go away with it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a space and its memberships. One that holds documents is refused unless --force takes them away with it.

    Examples: `appliance spaces remove drafts --yes` · `appliance spaces remove legal --force`
    """
    held = _documents(name)
    if held and not force:
        hint = f"take them out first (appliance docs list --space {name}), or add --force"
        raise ApplianceError("conflict", f"space {name} holds {plural(held, 'document')}", hint=hint)
    if not yes:
        lost = f", and {plural(held, 'document')} for good" if held else ""
        typer.confirm(f"Remove space {name} with all its memberships{lost}?", abort=True, err=True)
    run(lambda directory, actor: directory.remove_space(actor, name))
    say(f"space {name} removed" + (f"; {plural(held, 'document')} went with it" if held else ""))


def _documents(space: str) -> int:
    """How many documents the space owns, read from the catalogue itself: the box need not run."""
    database = Home(home_folder()).database
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            return int(connection.execute("SELECT count(*) FROM documents WHERE space = ?", (space,)).fetchone()[0])
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # a home whose first start was cut short
            return 0
        raise ApplianceError("home_invalid", f"cannot read {database}: {error}", hint="see: appliance doctor") from error


async def _rows(directory: Directory, actor: Principal) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for space in await directory.spaces(actor):
        members = await directory.members(actor, space.name)
        names = [f"{member.subject.removeprefix('user:')}:{member.role.name.lower()}" for member in members]
        rows.append({"name": space.name, "title": space.title, "members": names})
    return rows
