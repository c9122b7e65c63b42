"""``appliance bundle install | upgrade | rollback | recover | history | status | prune | settle``: verbs of ``appliance.bundle.site``, on a machine that has the appliance.

Owns options and how answers look. On a bare host the same functions run out of ``appliance-install.pyz``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from appliance.bundle.site import inspection, operations
from appliance.bundle.site.health import HEALTH_SECONDS, HealthCheck
from appliance.bundle.site.layout import DEFAULT_SITE, open_site
from appliance.bundle.site.locks import operation_lock
from appliance.bundle.site.pinning import pin_of
from appliance.bundle.site.prune import KEEP, prune
from appliance.bundle.site.records import Settings
from appliance.bundle.site.settle import settle
from appliance.identity.console import print_json, say

SITE_VARIABLE = "APPLIANCE_SITE"
File = Annotated[Path, typer.Argument(help="A *.bundle file, full or delta.")]
SiteFolder = Annotated[Path, typer.Option("--site", envvar=SITE_VARIABLE, help="Folder of the site.")]
Fingerprint = Annotated[str, typer.Option(help="sha256:… of the first root of trust, read from paper.")]
RootFile = Annotated[Path | None, typer.Option("--root", help="File with the root of trust.")]
AllowOlder = Annotated[bool, typer.Option("--allow-older", help="Accept an older release than this site has had; needs --reason.")]
AllowExpired = Annotated[bool, typer.Option("--allow-expired", help="Accept an expired bundle or root; needs --reason.")]
Reason = Annotated[str, typer.Option(help="Why; written into the history.")]
NoStart = Annotated[bool, typer.Option("--no-start", help="Files only: nobody is restarted or asked.")]
HealthSeconds = Annotated[float, typer.Option(min=0.1, help="How long the box may take to be ready before the change is taken back.")]
CheckCommand = Annotated[str, typer.Option(help="One more check before the change is confirmed, for example 'appliance smoke'.")]
Keep = Annotated[int, typer.Option(min=2, help="How many finished generations stay.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance bundle``."""
    for verb in (install, upgrade, rollback, recover, history, status):
        app.command(verb.__name__)(verb)
    app.command("prune")(prune_generations)
    app.command("settle")(settle_site)


def install(
    file: File,
    *,
    site: SiteFolder = DEFAULT_SITE,
    fingerprint: Fingerprint = "",
    root: RootFile = None,
    home: Annotated[Path, typer.Option(help="Data of the box.")] = operations.DEFAULT_HOME,
    user: Annotated[str, typer.Option(help="Who runs the box; empty: who installs.")] = "",
    service: Annotated[str, typer.Option(help="systemd:UNIT, process or none.")] = "none",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    allow_older: AllowOlder = False,
    allow_expired: AllowExpired = False,
    reason: Reason = "",
    no_start: NoStart = False,
    health_seconds: HealthSeconds = HEALTH_SECONDS,
    check_command: CheckCommand = "",
    keep: Keep = KEEP,
    as_json: AsJson = False,
) -> None:
    """Make a site run a bundle: first install, upgrade, or nothing when it runs it already. Given again it finishes what was interrupted.

    Examples:
        appliance bundle install embedded.bundle --fingerprint sha256:3a7b… --service systemd:appliance
        appliance bundle install embedded.bundle --site /srv/box --home /srv/data --fingerprint sha256:3a7b… --service process
    """
    settings = Settings(str(home.absolute()), user, service, host, port)
    wishes = operations.Wishes(
        pin_of(fingerprint, root), allow_older, allow_expired, reason, not no_start, HealthCheck(health_seconds, check_command), keep
    )
    with _surroundings() as around:
        done = operations.install(site, file, settings, wishes, around)
    _answer(done, as_json=as_json)


def upgrade(
    file: File,
    *,
    site: SiteFolder = DEFAULT_SITE,
    fingerprint: Fingerprint = "",
    allow_older: AllowOlder = False,
    allow_expired: AllowExpired = False,
    reason: Reason = "",
    no_start: NoStart = False,
    health_seconds: HealthSeconds = HEALTH_SECONDS,
    check_command: CheckCommand = "",
    keep: Keep = KEEP,
    as_json: AsJson = False,
) -> None:
    """Bring an installed site to a newer bundle or delta; a release that does not become ready is taken back by itself (exit status 61).

    Examples:
        appliance bundle upgrade new.bundle --check-command "appliance smoke"
        appliance bundle upgrade old.bundle --allow-older --reason "4711: regression in search"
    """
    wishes = operations.Wishes(
        pin_of(fingerprint, None), allow_older, allow_expired, reason, not no_start, HealthCheck(health_seconds, check_command), keep
    )
    with _surroundings() as around:
        done = operations.upgrade(site, file, wishes, around)
    _answer(done, as_json=as_json)


def rollback(
    *,
    site: SiteFolder = DEFAULT_SITE,
    to: Annotated[str, typer.Option(help="A generation; default: the one before this.")] = "",
    restore_data: Annotated[
        bool, typer.Option("--restore-data", help="Put back the data from before the upgrade; newer data are set aside.")
    ] = False,
    reason: Reason = "",
    no_start: NoStart = False,
    health_seconds: HealthSeconds = HEALTH_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Go back to the release before this one, with the data that were written meanwhile.

    Examples:
        appliance bundle rollback
        appliance bundle rollback --to 1795258976-0123456789ab --reason "slow answers"
    """
    with _surroundings() as around:
        done = operations.rollback(
            site, to, restore_data=restore_data, reason=reason, start=not no_start, check=HealthCheck(health_seconds), around=around
        )
    _answer(done, as_json=as_json)


def recover(*, site: SiteFolder = DEFAULT_SITE, as_json: AsJson = False) -> None:
    """Finish what a killed command left, and start the box of a site without systemd that does not run.

    Examples:
        appliance bundle recover
    """
    with _surroundings() as around:
        done = operations.recover(site, around)
    _answer(done, as_json=as_json)


def history(*, site: SiteFolder = DEFAULT_SITE, as_json: AsJson = False) -> None:
    """What was done to a site; the chain of entries is checked first.

    Examples:
        appliance bundle history --json
    """
    entries = inspection.history(open_site(site))
    if as_json:
        print_json(entries)
    else:
        print(inspection.history_text(entries))


def status(*, site: SiteFolder = DEFAULT_SITE, as_json: AsJson = False) -> None:
    """Which generations a site has, which one runs, and what is under way.

    Examples:
        appliance bundle status
    """
    found = inspection.status(open_site(site))
    if as_json:
        print_json(found)
    else:
        print(inspection.status_text(found))


def prune_generations(*, site: SiteFolder = DEFAULT_SITE, keep: Keep = KEEP, as_json: AsJson = False) -> None:
    """Remove old generations; never the current one or the one before.

    Examples:
        appliance bundle prune --keep 2
    """
    opened = open_site(site)
    with operation_lock(opened):
        removed = prune(opened, keep)
    if as_json:
        print_json({"removed": removed})
    else:
        print("\n".join(removed) or "nothing to remove")


def settle_site(*, site: SiteFolder = DEFAULT_SITE) -> None:
    """Bring a site to where a pending change wants it; a unit runs this before every start of the box.

    Examples:
        appliance bundle settle
    """
    print(settle(open_site(site)).name)


def _answer(done: operations.Done, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(done))
        return
    what = f"{done.generation} runs" if done.changed else f"{done.generation} runs already; nothing was changed"
    print(f"{done.verb}: {what}" + (f"; data: {done.data}" if done.data else ""))


@contextmanager
def _surroundings() -> Iterator[operations.Surroundings]:
    """Talk on stderr; bars only on a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield operations.Surroundings(say=say)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield operations.Surroundings(say=bars.console.print, progress=_report(bars))


def _report(bars: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done)

    return report
