"""Starting a box as a process of its own: wait until it is ready, say in its own words why it does not come, warn of what is degraded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from appliance.home import Home, RunningBox
from appliance.identity.console import say
from appliance.kit.errors import OUTCOMES, ApplianceError

START_SECONDS: Final = 60.0
_ERROR_LINE: Final = re.compile(r"error: (?P<message>.*?)(?: \((?P<code>[a-z_]+)\))?")


@dataclass(frozen=True, slots=True)
class StartedBox:
    """A box that is ready, and its process."""

    process: subprocess.Popen[bytes]
    running: RunningBox


def start_detached(home: Home, command: list[str]) -> StartedBox:
    """Start ``command`` in a session of its own and wait for a green ``/readyz``.

    Raises:
        ApplianceError: the one that the box itself gave when it ends while it starts; ``unavailable`` when it does not come in time.
    """
    environment = {**os.environ, "APPLIANCE_HOME": str(home.path)}
    log = home.logs / "box.err"
    with log.open("ab") as errors:
        said_before = errors.tell()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _cause(log, said_before)
        box = home.running()
        if box is not None and box.pid == process.pid and _is_ready(box):
            return StartedBox(process, box)
        time.sleep(0.05)
    raise ApplianceError("unavailable", f"the box is not ready after {START_SECONDS:.0f} s", hint=f"see {home.logs} and: appliance doctor")


def _cause(log: Path, said_before: int) -> ApplianceError:
    """The error that the box wrote as its last words of this start, with its hint."""
    try:
        lines = log.read_bytes()[said_before:].decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    for number in reversed(range(len(lines))):
        match = _ERROR_LINE.fullmatch(lines[number])
        if match is None:
            continue
        following = lines[number + 1] if number + 1 < len(lines) else ""
        hint = following.removeprefix("hint: ") if following.startswith("hint: ") else f"see {log}"
        if "address already in use" in match["message"].lower():
            hint = "choose another port: appliance up --port 8081 (make up PORT=8081)"
        code = match["code"] or ""
        return ApplianceError(code if code in OUTCOMES else "unavailable", match["message"], hint=hint)
    last = f": {lines[-1][:500]}" if lines else ""
    return ApplianceError("unavailable", f"the box ended while it started{last}", hint=f"see {log}, and: appliance doctor")


def _is_ready(box: RunningBox) -> bool:
    try:
        return httpx.get(box.url + "/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def read_report(box: RunningBox) -> dict[str, Any] | None:
    """What ``/readyz`` says, ready or not; None when nobody answers."""
    try:
        report: dict[str, Any] = httpx.get(box.url + "/readyz", timeout=10, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    return report


def warn_of_degraded(report: Mapping[str, Any] | None) -> None:
    """A ``warning:`` line on stderr for each check that works with less than it should have."""
    for name, check in ((report or {}).get("checks") or {}).items():
        detail = str(check.get("detail") or "")
        if detail.startswith("degraded"):
            say(f"warning: {name} is {detail}")


def warn_when_ready(home: Home, pid: int) -> None:
    """Leave a watcher that gives those warnings once the box that is about to take over process ``pid`` is ready, and ends.

    It is a grandchild: the box has no child to reap.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            _watch(home, pid)
    finally:
        os._exit(0)


def _watch(home: Home, pid: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
            box = home.running()
            if box is not None and box.pid == pid and _is_ready(box):
                warn_of_degraded(read_report(box))
                return
            time.sleep(0.2)
    except KeyboardInterrupt:
        return
