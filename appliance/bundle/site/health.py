"""Whether the box that runs is the right generation and ready: asks ``/readyz`` on this machine until it is green or the time is up."""

from __future__ import annotations

import http.client
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from appliance.bundle.site.account import owner_of
from appliance.bundle.site.environment import bare_environment
from appliance.bundle.site.layout import Generation
from appliance.bundle.site.process_service import read_running
from appliance.bundle.site.progress import plain
from appliance.bundle.site.records import Settings
from appliance.bundle.site.service import Service
from appliance.kit.errors import ApplianceError

HEALTH_SECONDS: Final = 90.0
CHECK_SECONDS: Final = 600.0
PREPARE_SECONDS: Final = 3600.0  # stopping the old box, then copies and changes of the databases in ``settle``
_ANSWER_BYTES: Final = 65536
_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What must hold before a generation is confirmed.

    Attributes:
        seconds: how long the box may take to be ready, from when nothing is prepared for it any more.
        command: one more check, run as the user who owns the home; empty for none.
    """

    seconds: float = HEALTH_SECONDS
    command: str = ""


def wait_until_healthy(settings: Settings, target: Generation, service: Service, check: HealthCheck, given_up: Callable[[], bool]) -> str:
    """What is wrong with ``target``; empty when it is ready. ``given_up`` tells that ``settle`` has turned round meanwhile."""
    latest = time.monotonic() + PREPARE_SECONDS
    deadline = time.monotonic() + check.seconds
    found = "it does not run"
    while time.monotonic() < deadline:
        found = _problem(settings, target)
        if not found:
            return _run_check(settings, target, check.command) if check.command else ""
        failure = service.failure()
        if failure:
            return failure
        if given_up():
            return "it did not stay up"
        if service.is_preparing():
            deadline = min(time.monotonic() + check.seconds, latest)
        time.sleep(_PAUSE_SECONDS)
    return f"it is not ready after {check.seconds:.0f} s: {found}"


def _problem(settings: Settings, target: Generation) -> str:
    running = read_running(Path(settings.home))
    pid, url = running.get("pid"), running.get("url")
    if not isinstance(pid, int) or not isinstance(url, str):
        return "it does not run"
    if not _runs(pid, target):
        return "another generation runs"
    try:
        port = urlsplit(url).port or 0
    except ValueError:
        return "it announces no address"
    return ask(settings.host, port)


def ask(host: str, port: int) -> str:
    """What ``/readyz`` complains of; empty when it is green."""
    address = "127.0.0.1" if host in {"", "0.0.0.0", "::", "localhost"} else host  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as exc:
        return f"/readyz does not answer ({exc})"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"/readyz says {answer.status} {plain(body[:300].decode(errors='replace'))}"


def _runs(pid: int, target: Generation) -> bool:
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
    return program.startswith(os.fsencode(f"{target.path}/"))


def _run_check(settings: Settings, target: Generation, command: str) -> str:
    environment = {**bare_environment(), "APPLIANCE_HOME": settings.home, "HOME": settings.home, "APPLIANCE_GENERATION": str(target.path)}
    try:
        ended: subprocess.CompletedProcess[bytes] = subprocess.run(
            shlex.split(command), env=environment, cwd=settings.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=CHECK_SECONDS, check=False, **owner_of(Path(settings.home)),
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        return f"the check {command!r} did not run: {exc}"
    return (
        ""
        if ended.returncode == 0
        else f"the check {command!r} ended with {ended.returncode}: {plain(ended.stdout.decode(errors='replace').strip()[-1000:])}"
    )


def check_syntax(command: str) -> None:
    """Raises ``invalid_request`` for a command that a shell would not split."""
    try:
        shlex.split(command)
    except ValueError as exc:
        raise ApplianceError("invalid_request", f"--check-command: {exc}", hint="quote it as for a shell") from exc
