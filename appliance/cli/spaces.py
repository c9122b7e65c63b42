"""``appliance spaces``: rooms for documents, and who may enter them."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.identity import domain
from appliance.identity.console import print_rows, run, say
from appliance.identity.directory import Directory
from appliance.identity.principal import Principal

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
def remove(name: Name, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove a space: nobody sees it or its documents any more. To delete the documents as well, do that first.

    Example: `appliance spaces remove legal --yes`
    """
    if not yes:
        typer.confirm(f"Remove space {name} and all its memberships?", abort=True, err=True)
    run(lambda directory, actor: directory.remove_space(actor, name))
    say(f"space {name} removed")


async def _rows(directory: Directory, actor: Principal) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for space in await directory.spaces(actor):
        members = await directory.members(actor, space.name)
        names = [f"{member.subject.removeprefix('user:')}:{member.role.name.lower()}" for member in members]
        rows.append({"name": space.name, "title": space.title, "members": names})
    return rows
