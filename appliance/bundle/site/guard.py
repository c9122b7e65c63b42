"""The process that carries a switch through when the command that asked for it is killed. Owns its start, the lock it inherits, and what it reports.

It speaks one JSON line at a time on stdout: ``{"say": …}``, at the end ``{"result": …}`` or ``{"error": …}``. A reader that is gone changes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from appliance.bundle.site.environment import base_python
from appliance.bundle.site.health import HealthCheck
from appliance.bundle.site.layout import Site
from appliance.bundle.site.locks import operation_lock
from appliance.bundle.site.records import Settings, read_settings
from appliance.bundle.site.service import open_service
from appliance.bundle.site.settle import Observe, unobserved
from appliance.bundle.site.switching import Say, Switching
from appliance.kit.errors import ApplianceError

Guard = Callable[[Site, int, HealthCheck, Say], str]
"""Carries the pending change of a site through: site, descriptor of the lock, what to check, where to talk. Returns the generation that runs."""


def guard_in_process(site: Site, _lock: int, check: HealthCheck, say: Say, *, settings: Settings | None = None, observe: Observe = unobserved) -> str:
    """Here and now: for sites whose service is somebody else's business, where there is nothing to be left half-started."""
    return Switching(site, open_service(settings or read_settings(site), site.path), check, say, observe=observe).run()


def guard_detached(site: Site, lock: int, check: HealthCheck, say: Say, command: list[str] | None = None) -> str:
    """In a session of its own, with the site's own tool. Raises what the guard reports, ``install_failed`` when it dies."""
    line = command or [base_python(), "-I", str(site.tool)]
    line = [*line, "guard", "--site", str(site.path), "--lock", str(lock), "--health-seconds", str(check.seconds), f"--check-command={check.command}"]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(lock,), start_new_session=True, cwd="/", text=True)
    result: str | None = None
    with process:
        for message in map(_message, process.stdout or ()):
            if "say" in message:
                say(str(message["say"]))
            if "error" in message:
                raise ApplianceError(message["error"]["code"], message["error"]["message"], hint=message["error"]["hint"])
            result = str(message["result"]) if "result" in message else result
    if result is None:
        raise ApplianceError("install_failed", f"the guard of the change ended with {process.returncode}", hint="appliance bundle recover")
    return result


def serve(site: Site, lock: int, check: HealthCheck, *, observe: Observe = unobserved) -> int:
    """Be the guard. Returns the exit status."""

    def tell(message: dict[str, Any]) -> None:
        try:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        except OSError:  # the command was killed; the work goes on
            _mute()

    with operation_lock(site, lock):
        try:
            result = guard_in_process(site, lock, check, lambda line: tell({"say": line}), observe=observe)
        except ApplianceError as error:
            tell({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
            return error.outcome.exit
    tell({"result": result})
    return 0


def _mute() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.close(silence)


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {"say": line.rstrip()}
    return message if isinstance(message, dict) else {}
