"""``appliance backup`` and ``appliance restore``: one file out of a box, a box out of one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict
from rich.console import Console
from rich.progress import Progress

from appliance.audit.signing import load_public_key
from appliance.backup.restore import restore_backup
from appliance.backup.take import take_backup
from appliance.home import Home
from appliance.identity.console import print_json, say

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def backup(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write; mode 0600: it holds the keys of the box")],
    with_models: Annotated[bool, typer.Option("--with-models", help="also the model snapshots of the home")] = False,
    as_json: AsJson = False,
) -> None:
    """Back up $APPLIANCE_HOME into one signed file; the box may go on working.

    Examples:
        appliance backup -o /mnt/usb/box-2026-11-21.backup
        appliance backup -o box.backup --with-models --json
    """
    with Progress(console=Console(stderr=True), disable=as_json or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("copying", total=None)
        index = take_backup(
            Home.default(), output.absolute(), with_models=with_models, progress=lambda path, _: bar.update(task, advance=1, description=path[:60])
        )
    size = output.stat().st_size
    if as_json:
        print_json({"file": str(output), "bytes": size, "files": len(index.files), **asdict(index.facts)})
        return
    say(f"{output}: {len(index.files)} files, {size / 2**20:.1f} MiB, signed with the audit key; keep it where only you can read it")


def restore(
    archive: Annotated[Path, typer.Argument(help="a file made by `appliance backup`")],
    *,
    home: Annotated[Path | None, typer.Option("--home", help="where to; $APPLIANCE_HOME when absent")] = None,
    public_key: Annotated[Path | None, typer.Option("--public-key", help="audit key of the box (PEM), kept elsewhere; without it the backup vouches for itself")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="move a home that is there aside; it is kept")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a home out of a backup: every byte is checked before it appears; then start it with `appliance up`.

    Examples:
        appliance restore /mnt/usb/box-2026-11-21.backup --home /srv/box --public-key audit.pub.pem
    """
    target = Home(home.absolute()) if home is not None else Home.default()
    done = restore_backup(archive, target, public=load_public_key(public_key) if public_key else None, replace=replace)
    if as_json:
        facts = {"aside": str(done.aside) if done.aside else None, "audit_records": done.audit_records, **asdict(done.index.facts)}
        print_json({"home": str(done.home), "files": len(done.index.files), **facts})
        return
    if done.aside is not None:
        say(f"the home that stood there is now {done.aside}")
    say(f"{done.home}: {len(done.index.files)} files restored, {done.audit_records} audit records hold; models: make setup or the bundle, indexes: at the next start")
