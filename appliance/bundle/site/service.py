"""How the box of a site is stopped and started: the port, and the adapters for systemd and for a site whose files only are managed.

The adapter without systemd is in ``process_service``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from appliance.bundle.format import canonical_json
from appliance.bundle.site.environment import bare_environment
from appliance.bundle.site.records import Settings
from appliance.kit.errors import ApplianceError

_COMMAND_SECONDS: Final = 300.0
_TAIL_LINES: Final = 20


class Service(Protocol):
    """The box as something that can be restarted.

    Invariant: ``prepare`` (``settle``) has run while the box was down, before the new process starts.
    """

    @property
    def runs_box(self) -> bool:
        """Whether there is a box to be healthy at all."""

    def restart(self, prepare: Callable[[], object]) -> None:
        """Stop, prepare, start; returns when the start was ordered. Raises ``install_failed``, and what ``prepare`` raises."""

    def failure(self) -> str:
        """Why it will not come up any more; empty while it may."""

    def is_preparing(self) -> bool:
        """Whether the old box still stops or ``settle`` works, so that the new process cannot be there yet."""

    def last_words(self) -> str:
        """The end of its log."""


class NoService:
    """Files only: somebody else starts the box."""

    runs_box = False

    def __init__(self, is_running: Callable[[], bool]) -> None:
        self._is_running = is_running

    def restart(self, prepare: Callable[[], object]) -> None:
        """Only prepare. Raises ``site_busy`` while a box runs on the home."""
        if self._is_running():
            raise ApplianceError("site_busy", "a box runs on the home of this site", hint="stop it first, or name the service with --service")
        prepare()

    def failure(self) -> str:
        """Nothing runs, so nothing fails."""
        return ""

    def is_preparing(self) -> bool:
        """Prepared is before :meth:`restart` returns."""
        return False

    def last_words(self) -> str:
        """Nothing was said."""
        return ""


class SystemdService:
    """A unit whose ``ExecStartPre=+<site>/bin/settle`` prepares; restarting is one job of PID 1, so nobody's death leaves the box stopped."""

    runs_box = True

    def __init__(self, unit: str, systemctl: str = "systemctl", journalctl: str = "journalctl") -> None:
        self._unit = unit if "." in unit else f"{unit}.service"
        self._systemctl, self._journalctl = systemctl, journalctl

    def restart(self, prepare: Callable[[], object]) -> None:  # noqa: ARG002 - the unit prepares, in its own ExecStartPre
        """Reset the start limit (nothing to reset is fine), then restart. A start that fails is told by :meth:`failure`."""
        self._run(self._systemctl, "reset-failed", self._unit)
        self._run(self._systemctl, "restart", "--no-block", self._unit, must_succeed=True)

    def failure(self) -> str:
        """``failed`` is final; a restart that systemd will do by itself is not."""
        facts = self._facts()
        if facts.get("LoadState") == "not-found":
            return f"there is no unit {self._unit}"
        return f"{self._unit} failed ({facts.get('Result', 'unknown')})" if facts.get("ActiveState") == "failed" else ""

    def is_preparing(self) -> bool:
        """From the states of systemd: ``ExecStop`` and ``ExecStartPre``."""
        facts = self._facts()
        return facts.get("ActiveState") == "deactivating" or facts.get("SubState") == "start-pre"

    def last_words(self) -> str:
        """From the journal."""
        return self._run(self._journalctl, "--no-pager", "--quiet", "--output=cat", f"--lines={_TAIL_LINES}", f"--unit={self._unit}")

    def _facts(self) -> dict[str, str]:
        said = self._run(self._systemctl, "show", "--property=LoadState,ActiveState,SubState,Result", self._unit)
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def _run(self, *command: str, must_succeed: bool = False) -> str:
        try:
            ended = subprocess.run(
                command, env=bare_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ApplianceError("install_failed", f"cannot run {command[0]}: {exc}", hint="use --service process on a host without systemd") from exc
        if must_succeed and ended.returncode:
            said = canonical_json.printable(ended.stderr.decode(errors="replace").strip())
            raise ApplianceError("install_failed", f"{' '.join(command)} ended with {ended.returncode}: {said[:500]}", hint="systemctl status says more")
        return ended.stdout.decode(errors="replace")


def check_service_name(name: str) -> str:
    """``systemd:<unit>``, ``process`` or ``none``. Raises ``invalid_request``."""
    unit = name.removeprefix("systemd:")
    if name in {"process", "none"} or (name != unit and unit and all(sign.isalnum() or sign in "@._-" for sign in unit) and unit[0] != "-"):
        return name
    raise ApplianceError("invalid_request", f"unknown service {name[:60]!r}", hint="systemd:UNIT, process or none")


def open_service(settings: Settings, site: Path) -> Service:
    """The adapter that the settings name. Raises ``invalid_request``."""
    from appliance.bundle.site.process_service import ProcessService

    name = check_service_name(settings.service)
    process = ProcessService(settings, site)
    if name == "process":
        return process
    return NoService(process.is_running) if name == "none" else SystemdService(name.removeprefix("systemd:"))
