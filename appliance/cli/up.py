"""``appliance up | down | status``: start the box, stop it, ask it how it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import orjson
import typer
from rich.console import Console
from rich.table import Table

from appliance.cli.demo import load_demo
from appliance.home import Home, RunningBox
from appliance.kit.errors import ApplianceError
from appliance.kit.offline import seal_environment

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
talk = Console(stderr=True, highlight=False)


def up(
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
    if running is not None:
        talk.print(f"the box of {home.path} runs already")
        _welcome(home, running)
        return
    home.create()
    seal_environment(home.path)
    command = [sys.executable, "-m", "services.allinone", "--host", host, "--port", str(port)]
    if not detach and not demo:
        os.environ["APPLIANCE_HOME"] = str(home.path)
        os.environ["APPLIANCE_WELCOME"] = "1"
        os.execv(sys.executable, command)  # noqa: S606 - our own interpreter and module: the box takes this process over
    started = time.monotonic()
    process = _spawn(home, command)
    box = _wait_until_ready(home, process)
    talk.print(f"ready in {time.monotonic() - started:.1f} s")
    if demo:
        load_demo()
    _welcome(home, box)
    if not detach:
        _follow(process)


def _spawn(home: Home, command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "APPLIANCE_HOME": str(home.path)}
    with (home.logs / "box.err").open("ab") as errors:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True)


def _wait_until_ready(home: Home, process: subprocess.Popen[bytes]) -> RunningBox:
    """Wait for a green ``/readyz``; say why when the box does not come."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ApplianceError("unavailable", "the box ended while it started", hint=_last_words(home.logs))
        box = home.running()
        if box is not None and box.pid == process.pid and _ready(box):
            return box
        time.sleep(0.05)
    raise ApplianceError("unavailable", f"the box is not ready after {_START_SECONDS:.0f} s", hint=f"see {home.logs} and: appliance doctor")


def _ready(box: RunningBox) -> bool:
    try:
        return httpx.get(box.url + "/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _last_words(logs: Path) -> str:
    try:
        lines = (logs / "box.err").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        if line.startswith("error:"):
            return line
    return lines[-1][:500] if lines else f"see {logs}"


def _follow(process: subprocess.Popen[bytes]) -> None:
    """Stay in front of the box: Ctrl-C and SIGTERM stop it."""
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)


def _welcome(home: Home, box: RunningBox) -> None:
    for line in welcome_lines(home, box.url):
        talk.print(line)


def welcome_lines(home: Home, url: str) -> list[str]:
    """What a newcomer needs: the address, how to log in, what to try."""
    return [
        "",
        f"  The box is ready:  {url}",
        f"  Log in as          admin   (password: cat {home.admin_password})",
        f"  For scripts        API key in {home.admin_key}",
        '  Try                appliance docs add FILE_OR_FOLDER && appliance chat "your question"',
        "",
    ]


def down() -> None:
    """Stop the box of $APPLIANCE_HOME; what it acknowledged is on disk already."""
    home = Home.default()
    box = home.running()
    if box is None:
        talk.print(f"no box serves {home.path}")
        return
    os.kill(box.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while box.alive:
        if time.monotonic() > deadline:
            talk.print("it does not stop; killing it (nothing acknowledged is lost)")
            os.kill(box.pid, signal.SIGKILL)
            deadline += _STOP_SECONDS
        time.sleep(0.05)
    home.withdraw()
    talk.print("stopped")


def status(json: Annotated[bool, typer.Option("--json", help="print /readyz as JSON")] = False) -> None:
    """Ask the running box whether it can serve; exit status 40 when it cannot."""
    home = Home.default()
    box = home.running()
    if box is None:
        raise ApplianceError("unavailable", f"no box serves {home.path}", hint="start it with: appliance up")
    answer = httpx.get(box.url + "/readyz", timeout=10, trust_env=False)
    report: dict[str, Any] = answer.json()
    if json:
        print(orjson.dumps({"url": box.url, "pid": box.pid, **report}).decode())
    else:
        table = Table("check", "ok", "detail")
        for name, check in report.get("checks", {}).items():
            table.add_row(name, "yes" if check["ok"] else "NO", str(check.get("detail", "")))
        Console().print(table)
    if answer.status_code != 200:
        raise ApplianceError("unavailable", "the box is not ready", hint="appliance doctor says what to do")
