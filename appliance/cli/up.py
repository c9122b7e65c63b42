"""``appliance up | down | status``: start the box, stop it, ask it how it is."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appliance.bundle.site.layout import Site
from appliance.bundle.site.records import settings_or_none
from appliance.cli.demo import load_demo
from appliance.cli.start import read_report, start_detached, warn_of_degraded, warn_when_ready
from appliance.cli.stop import STOP_SECONDS, stop_box
from appliance.home import Home, RunningBox
from appliance.identity.console import say
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import seal_environment
from appliance.kit.ownership import acting_as_owner


def up(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0 takes a free one")] = 8080,
    detach: Annotated[bool, typer.Option("--detach", help="return when /readyz is green")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="also load the demo library")] = False,
) -> None:
    """Start the box of $APPLIANCE_HOME; the first start makes keys, the administrator and the space `default`.

    Examples:
        appliance up --port 8080
        appliance up --detach --demo
    """
    home = Home.default()
    running = home.running()
    host, port = _address(context, host, port)
    if running is not None:
        given = {name for name in ("host", "port") if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        _meet(home, running, {name: value for name, value in (("host", host), ("port", port)) if name in given}, demo=demo)
        return
    home.create()
    seal_environment(home.path)
    if not _is_loopback(host):
        say(f"warning: {host} is open to the network, and passwords travel there in clear HTTP; put a TLS proxy in front, or use 127.0.0.1")
    command = [sys.executable, "-m", "services.allinone", "--host", host, "--port", str(port)]
    if not detach and not demo:
        os.environ["APPLIANCE_HOME"] = str(home.path)
        os.environ["APPLIANCE_WELCOME"] = "1"
        warn_when_ready(home, os.getpid())
        os.execv(sys.executable, command)  # noqa: S606 - our own interpreter and module: the box takes this process over
    started = time.monotonic()
    box = start_detached(home, command)
    say(f"ready in {time.monotonic() - started:.1f} s")
    if demo:
        load_demo()
    _welcome(home, box.running)
    if not detach:
        _follow(box.process)


def _meet(home: Home, box: RunningBox, given: dict[str, object], *, demo: bool) -> None:
    """A box runs already: say what of the call it cannot take over, load the demo, show the way in."""
    say(f"the box of {home.path} runs already")
    address = urlsplit(box.url)
    ignored = [f"--{name} {value}" for name, value in given.items() if str(value) != str(getattr(address, {"host": "hostname"}.get(name, name)))]
    if ignored:
        say(f"warning: ignored: {' '.join(ignored)} (it stays at {box.url}; stop it first with: appliance down)")
    if demo:
        load_demo()
    _welcome(home, box)


def _address(context: typer.Context, host: str, port: int) -> tuple[str, int]:
    """What was given; else, on an installed site, what was chosen at its installation."""
    site = os.environ.get("APPLIANCE_SITE")
    settings = settings_or_none(Site(Path(site))) if site else None
    if settings is None:
        return host, port
    given = {name for name in ("host", "port") if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    return host if "host" in given else settings.host, port if "port" in given else settings.port


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _welcome(home: Home, box: RunningBox) -> None:
    say("\n".join(welcome_lines(home, box.url)))
    warn_of_degraded(read_report(box))


def welcome_lines(home: Home, url: str) -> list[str]:
    """What a newcomer needs: the address, how to log in, what to try. Paths are quoted for the shell and never wrapped."""
    return [
        "",
        f"  The box is ready:  {url}",
        f"  Log in as          admin   (password: cat {shlex.quote(str(home.admin_password))})",
        f"  For scripts        API key in {shlex.quote(str(home.admin_key))}",
        '  Try                appliance docs add FILE_OR_FOLDER && appliance chat "your question"',
        "",
    ]


def _follow(process: subprocess.Popen[bytes]) -> None:
    """Stay in front of the box: Ctrl-C and SIGTERM stop it."""
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def down() -> None:
    """Stop the box of $APPLIANCE_HOME; what it acknowledged is on disk already."""
    home = Home.default()
    box = home.running()
    if box is None:
        say(f"no box serves {home.path}")
        return
    stop_box(home, box)
    with acting_as_owner(home.path):
        home.withdraw()
    say("stopped")


def status(json: Annotated[bool, typer.Option("--json", help="print /readyz as JSON")] = False) -> None:
    """Ask the running box whether it can serve; exit status 40 when it cannot."""
    home = Home.default()
    box = home.running()
    if box is None:
        raise ApplianceError("unavailable", f"no box serves {home.path}", hint="start it with: appliance up")
    report = read_report(box)
    if report is None:
        raise ApplianceError("unavailable", f"process {box.pid} does not answer at {box.url}", hint="appliance doctor says what to do")
    if json:
        print(orjson.dumps({"url": box.url, "pid": box.pid, **report}).decode())
    else:
        table = Table("check", "ok", "detail")
        for name, check in report.get("checks", {}).items():
            table.add_row(name, "yes" if check["ok"] else "NO", escape(str(check.get("detail", ""))))
        Console().print(table)
    warn_of_degraded(report)
    if not all(check["ok"] for check in report.get("checks", {}).values()):
        raise ApplianceError("unavailable", "the box is not ready", hint="appliance doctor says what to do")
