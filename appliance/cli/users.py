"""``appliance users``: who may log in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.identity import roles
from appliance.identity.bootstrap import ADMIN_USER, PASSWORD_NAME
from appliance.identity.console import day, home_folder, print_json, print_rows, run, say
from appliance.identity.keys import new_secret
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    name="users",
    help="Add, list, disable and enable users; set passwords.\n\nExample: appliance users add anna --generate",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", help="Read the password from the first line of FILE ('-' for stdin).")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a random password and print it once.")]
_ROLE_HELP = f"member (default), admin, or {', '.join(sorted(roles.AGENTS | roles.OPERATORS))}."


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="a-z 0-9 . _ @ -, up to 63 characters.")],
    *,
    admin: Annotated[bool, typer.Option("--admin", help="May manage users, spaces and keys; the same as --role admin.")] = False,
    role: Annotated[str | None, typer.Option(help=_ROLE_HELP)] = None,
    password_file: PasswordFile = None,
    generate: Generate = False,
    as_json: AsJson = False,
) -> None:
    """Add a user. Asks for a password unless told where it comes from.

    Examples: `appliance users add anna` · `appliance users add bot --generate --json` · `appliance users add oleg --role operator:level2`
    """
    if admin and role not in {None, roles.ADMIN}:
        raise ApplianceError("invalid_request", f"--admin and --role {role} exclude each other", hint="give one of the two")
    chosen = roles.user_role(role or (roles.ADMIN if admin else roles.MEMBER))
    password = _password(password_file, generate=generate)
    run(lambda directory, actor: directory.add_user(actor, name, password, role=chosen))
    _report(name, f"user {name} added", password if generate else None, as_json=as_json)


@app.command("list")
def list_users(*, as_json: AsJson = False) -> None:
    """List users.

    Example: `appliance users list --json`
    """
    users = run(lambda directory, actor: directory.users(actor))
    rows = [
        {
            "name": user.name,
            "role": user.role,
            "disabled": user.disabled,
            "requests_per_minute": user.requests_per_minute,
            "created_at": day(user.created_at),
        }
        for user in users
    ]
    print_rows(rows, as_json=as_json)


@app.command("passwd")
def passwd(name: str, *, password_file: PasswordFile = None, generate: Generate = False, as_json: AsJson = False) -> None:
    """Set a user's password and end all sessions.

    Example: `appliance users passwd anna`
    """
    password = _password(password_file, generate=generate)
    run(lambda directory, actor: directory.set_password(actor, name, password))
    if name == ADMIN_USER:
        (home_folder() / PASSWORD_NAME).unlink(missing_ok=True)  # it holds the old one
    _report(name, f"password of {name} set; all sessions ended", password if generate else None, as_json=as_json)


@app.command("disable")
def disable(name: str) -> None:
    """Shut a user out at once: password, sessions and API keys.

    Example: `appliance users disable anna`
    """
    run(lambda directory, actor: directory.set_disabled(actor, name, disabled=True))
    say(f"user {name} disabled")


@app.command("enable")
def enable(name: str) -> None:
    """Let a user in again.

    Example: `appliance users enable anna`
    """
    run(lambda directory, actor: directory.set_disabled(actor, name, disabled=False))
    say(f"user {name} enabled")


def _password(source: Path | None, *, generate: bool) -> str:
    """Never from the command line, where every process could read it."""
    if generate:
        return new_secret("")[:24]
    if source is None:
        if not sys.stdin.isatty():
            raise ApplianceError("invalid_request", "no password given", hint="use --generate, or --password-file FILE ('-' for stdin)")
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = sys.stdin.readline() if str(source) == "-" else source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ApplianceError("invalid_request", f"cannot read {source}", hint="check the path") from error
    return text.splitlines()[0] if text else ""


def _report(name: str, line: str, password: str | None, *, as_json: bool) -> None:
    say(line)
    if as_json:
        print_json({"name": name, "password": password})
    elif password is not None:
        sys.stdout.write(f"{password}\n")
