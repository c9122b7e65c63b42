"""``appliance models alias``, ``pin``, ``unpin`` and ``gc``: which snapshot an alias means, and which snapshots stay."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.home import Home
from appliance.hub.aliasing import point_alias, split_alias
from appliance.hub.collecting import collect, set_pin
from appliance.identity.console import print_json, say
from appliance.kit.errors import ApplianceError

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Snapshot = Annotated[str, typer.Argument(help="KIND/NAME-vN.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance models``."""
    app.command("alias", epilog="Example: appliance models alias embed.minilm embed/minilm-v2")(alias_verb)
    app.command("pin", epilog="Example: appliance models pin llm/qwen3-8b-v1")(pin_verb)
    app.command("unpin", epilog="Example: appliance models unpin llm/qwen3-8b-v1")(unpin_verb)
    app.command("gc", epilog="Examples: appliance models gc --dry-run · appliance models gc llm/qwen3-8b-v1")(gc_verb)


def alias_verb(alias: Annotated[str, typer.Argument(help="KIND.ALIAS.")], snapshot: Snapshot, as_json: Json = False) -> None:
    """Let an alias mean another snapshot. One rename; a running box follows without restart, what runs keeps the version it began with."""
    kind, name = split_alias(alias)
    change = point_alias(Home.default().path, kind, name, snapshot)
    before = change.before.path or change.before.endpoint or change.before.engine if change.before else None
    if as_json:
        print_json(
            {
                "alias": alias,
                "before": before,
                "after": change.after.path,
                "digest": f"sha256:{change.after.digest}",
                "changed": change.before != change.after,
            }
        )
        return
    say(f"{alias}: {before or 'new'} → {change.after.path}" if change.before != change.after else f"{alias} means {change.after.path} already")


def pin_verb(snapshot: Snapshot, as_json: Json = False) -> None:
    """Keep a snapshot although no alias names it."""
    _pin(snapshot, pinned=True, as_json=as_json)


def unpin_verb(snapshot: Snapshot, as_json: Json = False) -> None:
    """Let a snapshot be collected again."""
    _pin(snapshot, pinned=False, as_json=as_json)


def gc_verb(
    snapshots: Annotated[list[str] | None, typer.Argument(help="Only these, and an error when one is needed; none = all that nobody needs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove snapshots that no alias names, nobody pinned and no process reads."""
    found = collect(Home.default().path, snapshots or (), dry_run=dry_run)
    freed = sum(entry.size_bytes for entry in found if entry.verdict == "removed")
    if as_json:
        rows = [{"snapshot": entry.path, "size_bytes": entry.size_bytes, "verdict": entry.verdict} for entry in found]
        print_json({"dry_run": dry_run, "freed_bytes": freed, "data": rows})
        return
    for entry in found:
        verdict = "would go" if dry_run and entry.verdict == "removed" else entry.verdict.replace("_", " ")
        print(f"{entry.path}  {entry.size_bytes} bytes  {verdict}")
    say(f"{freed} bytes {'would be ' if dry_run else ''}freed")


def _pin(snapshot: str, *, pinned: bool, as_json: bool) -> None:
    home = Home.default().path
    if not pinned and snapshot.count("/") != 1:
        raise ApplianceError("invalid_request", f"{snapshot!r} is no snapshot", hint="appliance models list --snapshots")
    changed = set_pin(home, snapshot, pinned=pinned)
    if as_json:
        print_json({"snapshot": snapshot, "pinned": pinned, "changed": changed})
        return
    say(f"{snapshot} is {'pinned' if pinned else 'not pinned'}{'' if changed else ' already'}")
