"""``appliance keys``: API keys for programs."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from appliance.identity import roles
from appliance.identity.bootstrap import ADMIN_USER
from appliance.identity.console import day, print_json, print_rows, run, say
from appliance.identity.keys import ApiKey
from appliance.identity.settings import KEY_REQUESTS_PER_MINUTE

app = typer.Typer(
    name="keys",
    help="Create, list and revoke API keys.\n\nExample: appliance keys create --owner anna --space legal",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
_DAY_SECONDS = 86_400
_ROLE_HELP = f"Most it may do: reader, editor, owner or admin; or who uses it: {', '.join(sorted(roles.AGENTS | roles.OPERATORS))}."


@app.command("create")
def create(
    *,
    owner: Annotated[str, typer.Option(help="User whose rights the key carries.")] = ADMIN_USER,
    role: Annotated[str, typer.Option(help=_ROLE_HELP)] = "reader",
    space_role: Annotated[str | None, typer.Option(help="Most an agent or operator may do in a space: reader (default), editor or owner.")] = None,
    space: Annotated[list[str] | None, typer.Option(help="Only this space; repeat for more.")] = None,
    title: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(help="Days until it expires; never when absent.")] = None,
    requests_per_minute: Annotated[int, typer.Option(help="Rate limit.")] = KEY_REQUESTS_PER_MINUTE,
    as_json: AsJson = False,
) -> None:
    """Create a key and print its secret, once.

    Examples: `appliance keys create --owner anna --role editor` · `appliance keys create --space legal --days 30 --json` ·
    `appliance keys create --role agent:claude_opus --space legal --space-role editor --title "Claude Code on anna's desk"`
    """
    expires_at = None if days is None else int(time.time() + days * _DAY_SECONDS)
    key, secret = run(
        lambda directory, actor: directory.create_key(
            actor,
            title=title,
            role=role,
            space_role=space_role,
            owner=owner,
            spaces=space or None,
            requests_per_minute=requests_per_minute,
            expires_at=expires_at,
        )
    )
    if as_json:
        print_json({"id": key.id, "key": secret, "owner": key.owner, **_roles(key), "expires_at": day(expires_at)})
        return
    say(f"key {key.id} of {key.owner}; the secret is shown only now:")
    sys.stdout.write(f"{secret}\n")


@app.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List keys, without their secrets.

    Example: `appliance keys list`
    """
    keys = run(lambda directory, actor: directory.keys(actor))
    rows = [
        {
            "id": key.id,
            "title": key.title,
            "owner": key.owner,
            **_roles(key),
            "spaces": None if key.spaces is None else list(key.spaces),
            "requests_per_minute": key.requests_per_minute,
            "created_at": day(key.created_at),
            "expires_at": day(key.expires_at),
            "revoked_at": day(key.revoked_at),
        }
        for key in keys
    ]
    print_rows(rows, as_json=as_json)


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The id from `appliance keys list` (k_…).")]) -> None:
    """End a key; a running box refuses it within a second.

    Example: `appliance keys revoke k_0123456789abcdef`
    """
    run(lambda directory, actor: directory.revoke_key(actor, key_id))
    say(f"key {key_id} revoked")


def _roles(key: ApiKey) -> dict[str, str]:
    return {"role": key.global_role or key.role, "space_role": "owner" if key.role == roles.ADMIN else key.role}
