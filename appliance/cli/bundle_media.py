"""``appliance bundle split | join | delta``: bundles on their way. What they do is in ``appliance.bundle.media``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.bundle.media.streaming import Progress
from appliance.identity.console import print_json, say
from appliance.kit.errors import ApplianceError

_SPLIT_EXAMPLES = """
Examples:

  appliance bundle split embedded.bundle --size 3900M -o parts/

  appliance bundle split embedded.bundle --size 25GB -o /media/disc --json

FAT media take files below 4 GiB: 3900M fits. M and MiB are 1024 x 1024 bytes, MB is 1,000,000. Safe to interrupt: run it again.
"""
_JOIN_EXAMPLES = """
Examples:

  appliance bundle join parts/ -o embedded.bundle

  appliance bundle join /media/a/*.part-* /media/b/*.part-* -o embedded.bundle

  appliance bundle join /media/stick --check

Order and names do not matter. Join checks every part, not the signature: run appliance bundle verify next.
"""
_DELTA_EXAMPLES = """
Examples:

  appliance bundle delta --from old.bundle new.bundle -o new.delta

  appliance bundle delta --from /opt/appliance/current/manifest.json new.bundle -o new.delta

  appliance bundle delta --apply old.bundle new.delta -o new.bundle

A delta is verified and installed like a bundle, on a site that has its base.
"""


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance bundle``."""
    app.command("split", epilog=_SPLIT_EXAMPLES)(split)
    app.command("join", epilog=_JOIN_EXAMPLES)(join)
    app.command("delta", epilog=_DELTA_EXAMPLES)(delta)


def split(
    file: Annotated[Path, typer.Argument(help="A bundle or a delta.")],
    size: Annotated[str, typer.Option("--size", help="Longest part: 3900M, 4G, 700MiB, 25GB.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the parts; default: that of FILE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Cut a bundle into parts for media. Each part can be checked alone."""
    from appliance.bundle.media.split import parse_size, split_bundle  # kept out of the other commands' start

    folder = file.parent if output is None else output
    with _bar("splitting") as progress:
        result = split_bundle(file, folder, parse_size(size), progress=progress)
    if as_json:
        parts = [
            {"file": str(folder / part.file_name), "part": part.part, "size_bytes": part.size, "sha256": part.sha256, "offset": part.offset}
            for part in result.parts
        ]
        print_json({"name": file.name, "bundle_sha256": result.sha256, "bundle_size": result.parts[0].bundle_size, "parts": parts})
    else:
        for part in result.parts:
            print(folder / part.file_name)
    say(f"{len(result.parts)} parts of {file.name} (sha256 {result.sha256}){_kept(result.kept_bytes)}")


def join(
    parts: Annotated[list[Path], typer.Argument(help="Parts in any order, or folders with parts.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The bundle.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the parts that are given and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put parts together again; names the parts that are missing or damaged."""
    from appliance.bundle.media.join import check_parts, join_parts  # kept out of the other commands' start

    if check == (output is not None):
        raise ApplianceError("invalid_request", "give either -o FILE or --check", hint="-o FILE joins; --check only looks at the parts")
    if output is None:
        with _bar("checking") as progress:
            headers, missing = check_parts(parts, progress=progress)
        found: dict[str, Any] = {"name": headers[0].name, "parts": headers[0].parts, "good": [header.part for header in headers], "missing": missing}
        if as_json:
            print_json(found)
        say(f"{len(headers)} of {headers[0].parts} parts of {headers[0].name} are here and undamaged")
        return
    with _bar("joining") as progress:
        result = join_parts(parts, output, progress=progress)
    if as_json:
        print_json({"path": str(result.path), "sha256": result.sha256, "size_bytes": result.size, "parts": result.parts})
    else:
        print(result.path)
    say(f"{result.parts} parts are whole (sha256 {result.sha256}){_kept(result.kept_bytes)}. Next: appliance bundle verify {result.path}")


def delta(
    file: Annotated[Path, typer.Argument(help="NEW with --from, DELTA with --apply.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The delta, or with --apply the full bundle.")],
    old: Annotated[Path | None, typer.Option("--from", help="The bundle that the site has, or the manifest.json of the site.")] = None,
    base: Annotated[Path | None, typer.Option("--apply", metavar="BASE", help="Make the full bundle out of BASE and DELTA.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Carry only what a site lacks; or give back the full bundle."""
    from appliance.bundle.media.delta import apply_delta, make_delta  # kept out of the other commands' start

    with _bar("writing") as progress:
        if old is not None and base is None:
            result = make_delta(old, file, output, progress=progress)
        elif base is not None and old is None:
            result = apply_delta(base, file, output, progress=progress)
        else:
            raise ApplianceError(
                "invalid_request", "give either --from or --apply", hint="--from OLD NEW makes a delta, --apply BASE DELTA a full bundle"
            )
    saved = result.full_size - result.size
    if as_json:
        numbers = {"size_bytes": result.size, "full_size_bytes": result.full_size, "saved_bytes": saved}
        print_json({"path": str(output), "sha256": result.sha256, **numbers, "carried_blobs": result.carried, "blobs": result.blobs})
    else:
        print(output)
    if old is not None:
        share = 100 * result.size / result.full_size
        say(f"{_megabytes(result.size)} instead of {_megabytes(result.full_size)}: {share:.1f} %, {_megabytes(saved)} saved")
        say(f"{result.carried} of {result.blobs} blobs (sha256 {result.sha256})")
    else:
        say(f"{_megabytes(result.size)} (sha256 {result.sha256}). Next: appliance bundle verify {output}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _kept(count: int) -> str:
    return f"; {_megabytes(count)} of an earlier run were kept" if count else ""


@contextmanager
def _bar(what: str) -> Iterator[Progress | None]:
    """Bytes on stderr where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    talk = Console(stderr=True)
    if not talk.is_terminal:
        yield None
        return
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=talk, transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
