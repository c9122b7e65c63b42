"""``appliance bundle build``: makes a signed bundle out of a definition. What it does is in ``appliance.bundle.build``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from appliance.bundle.format.manifest import FOLDERS, format_time, parse_time
from appliance.identity.console import home_folder, print_json, say
from appliance.kit.errors import ApplianceError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from appliance.bundle.build.assemble import Built
    from appliance.bundle.keys import Station

CACHE_VARIABLE: Final = "APPLIANCE_BUILD_CACHE"
EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"
_EXAMPLES: Final = """
Examples:

  appliance bundle build bundles/embedded.toml -o embedded.bundle

  appliance bundle build bundles/site.toml -o /media/site.bundle --without os-packages

  SOURCE_DATE_EPOCH=1795258976 appliance bundle build bundles/embedded.toml -o again.bundle --offline
"""


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance bundle``."""
    app.command("build", epilog=_EXAMPLES)(build)


def build(
    definition: Annotated[Path, typer.Argument(help="What goes in: bundles/*.toml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle file; appliance-install.pyz and appliance-install.pyz.sha256 are put beside it.")],
    station: Annotated[Path | None, typer.Option(help="Folder with the signing keys; default $APPLIANCE_STATION or ./var/station.")] = None,
    sequence: Annotated[int | None, typer.Option(min=0, help="Order among releases of this name; default: the time of issue.")] = None,
    issued_at: Annotated[str, typer.Option(help="2026-11-21T10:00:00Z; default $SOURCE_DATE_EPOCH, or the time of the last commit.")] = "",
    without: Annotated[list[str] | None, typer.Option(help="Leave out a kind of component; repeat for more.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for wheels and packages; default $APPLIANCE_BUILD_CACHE or ~/.cache/appliance.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; what is missing in the cache stops the build.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask apt again, although the cache knows an answer.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Threads.")] = 2,
    whole: Annotated[bool, typer.Option("--sha256", help="Write FILE.sha256 with the digests of bundle and installer instead; takes longer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")] = False,
) -> None:
    """Build a signed bundle. The same inputs give the same bytes. Safe to interrupt: run the same command again."""
    from appliance.bundle.build.assemble import Build, build_bundle  # heavy, and only this verb needs it
    from appliance.bundle.build.definition import read_definition

    left_out = tuple(sorted(set(without or ())))
    if unknown := [kind for kind in left_out if kind not in FOLDERS]:
        raise ApplianceError("invalid_request", f"--without {unknown[0]}: no such kind", hint=f"kinds: {', '.join(sorted(FOLDERS))}")
    if not output.absolute().parent.is_dir():
        raise ApplianceError("home_invalid", f"cannot write {output}: there is no folder {output.absolute().parent}", hint="make it, or choose another")
    moment = _issued_at(issued_at)
    read = read_definition(definition)
    where = (cache or _cache_folder()).absolute()
    home = home_folder().absolute()
    signer = _open_station(station, home)
    with _watching() as watcher:
        built = build_bundle(
            Build(read, output.absolute(), signer, home, where, moment, sequence, left_out, offline, refresh, jobs, whole_digest=whole), watcher
        )
    _report(built, signer, as_json=as_json)


def _open_station(folder: Path | None, home: Path) -> Station:
    """The station; sites are made to trust the key that signs the models of ``home``, where the root is a development root."""
    from appliance.bundle.key_ring import read_public_key
    from appliance.bundle.keys import open_or_create_station, station_folder
    from appliance.hub.model_trust import PUBLIC_NAME

    where = (folder or station_folder()).absolute()
    model_key = home / "keys" / PUBLIC_NAME
    station, made = open_or_create_station(where, model_keys=[read_public_key(model_key, "models")] if model_key.is_file() else [])
    if made:
        say(f"made a development key in {where}")
    if station.is_development:
        say("warning: signed with a development root: one key, no ceremony. For a real site: appliance trust init")
    return station


def _report(built: Built, station: Station, *, as_json: bool) -> None:
    manifest = built.manifest
    summary: dict[str, Any] = {
        "path": str(built.path),
        "name": manifest.name,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "issued_at": format_time(manifest.issued_at),
        "expires_at": format_time(manifest.expires_at),
        "size_bytes": built.size,
        "sha256": built.sha256,
        "manifest_sha256": manifest.digest,
        "root_fingerprint": station.fingerprint,
        "development_root": station.is_development,
        "signatures_missing": built.missing,
        "unknown_licences": built.unknown,
        "components": [
            {"name": part.name, "kind": part.kind, "files": len(part.files), "size_bytes": sum(file.size for file in part.files)}
            for part in manifest.components
        ],
        "companions": [str(path) for path in built.companions],
    }
    for part in summary["components"]:
        say(f"  {part['name']:<16} {part['kind']:<12} {part['files']:>6} files {part['size_bytes'] / 1e6:>10.1f} MB")
    say(f"{built.path}: {manifest.name} {manifest.version}, sequence {manifest.sequence}, {built.size / 1e6:.1f} MB, expires {summary['expires_at']}")
    say(f"manifest sha256 {manifest.digest}")
    say(f"root of trust: sha256:{station.fingerprint.removeprefix('sha256:')} (for paper: a site installs only what leads back to it)")
    if built.unknown:
        say(f"warning: {built.unknown} packages state no licence; see meta/licences.md in the bundle")
    if built.missing:
        say(f"warning: {built.missing} more signatures are needed: appliance bundle sign {built.path.name} on the other stations")
    if as_json:
        print_json(summary)


def _issued_at(text: str) -> int | None:
    try:
        if text:
            return int(parse_time(text).timestamp())
        epoch = os.environ.get(EPOCH_VARIABLE, "")
        return int(epoch) if epoch else None
    except ValueError as exc:
        given = f"--issued-at {text}" if text else f"{EPOCH_VARIABLE}={os.environ[EPOCH_VARIABLE]}"
        raise ApplianceError("invalid_request", f"{given} is no time", hint="2026-11-21T10:00:00Z, or Unix seconds in $SOURCE_DATE_EPOCH") from exc


def _cache_folder() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "appliance"


@dataclass
class _Screen:
    """Phases with a bar where there is a terminal, plain lines elsewhere."""

    progress_bar: Progress
    task: TaskID
    _started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def say(self, text: str) -> None:
        self.progress_bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def phase(self, title: str) -> None:
        self.progress_bar.reset(self.task, description=title, total=None)

    def progress(self, done: int, total: int) -> None:
        self.progress_bar.update(self.task, completed=done, total=total)


@contextmanager
def _watching() -> Iterator[_Screen]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield _Screen(bar, bar.add_task("starting", total=None))
