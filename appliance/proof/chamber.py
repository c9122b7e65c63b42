"""Runs a plan in fresh network, mount and process namespaces; nothing outside is touched, and nothing survives it.

Root is not needed where the kernel lets users make namespaces. Owns the way in and out; what happens inside is in ``inside``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from appliance.kit.errors import OUTCOMES, ApplianceError
from appliance.proof.inside import RESULT_NAME
from appliance.proof.plan import Plan, legible
from appliance.proof.tools import SEARCH_PATH, Tools

_MAX_RESULT_BYTES: Final = 16 * 2**20
Progress = Callable[[str, bool, float], None]


def check_namespaces(tools: Tools) -> None:
    """Make one namespace of each kind and leave it. Raises ApplianceError ``unavailable``."""
    tried = subprocess.run([*_entry(tools), "true"], capture_output=True, timeout=30, check=False, env={"PATH": SEARCH_PATH})
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip()[-200:]
        raise ApplianceError("unavailable", f"this user cannot make namespaces: {said}", hint="run as root: sudo appliance prove-airgap")


def run_plan(plan: Plan, tools: Tools, *, progress: Progress | None = None) -> dict[str, Any]:
    """Do ``plan`` in a chamber.

    Args:
        plan: its folder must exist and be absolute.
        tools: the programs.
        progress: told of each phase: name, whether it went well, seconds.

    Returns:
        Phases, counters, what the canary tried; the trace lies in the plan's folder. For a plan without phases: milliseconds of a start, counters.

    Raises:
        ApplianceError: ``unavailable`` when the chamber cannot be made or breaks.
    """
    folder = Path(plan.folder)
    plan.write(folder / "plan.json")
    environment = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "HOME": plan.folder, "PYTHONUNBUFFERED": "1"}
    command = [tools["setpriv"], "--pdeathsig", "KILL", *_entry(tools), sys.executable, "-m", "appliance.proof.inside", plan.folder]
    with (folder / "chamber.err").open("wb") as errors:
        chamber = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=folder)
        try:
            assert chamber.stdout is not None
            for name, ok, seconds in _phases(iter(chamber.stdout.readline, b"")):
                if progress is not None:
                    progress(name, ok, seconds)
            chamber.wait()
        finally:
            if chamber.poll() is None:
                chamber.kill()  # takes everything in the namespaces along
                chamber.wait()
    return _result(folder)


def _entry(tools: Tools) -> list[str]:
    as_user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [tools["unshare"], *as_user, "--net", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child=KILL", "--"]


def _phases(lines: Iterator[bytes]) -> Iterator[tuple[str, bool, float]]:
    for line in lines:
        phase = json.loads(line)["phase"]
        yield str(phase["name"]), bool(phase["ok"]), int(phase["milliseconds"]) / 1000


def _result(folder: Path) -> dict[str, Any]:
    path = folder / RESULT_NAME
    if not path.is_file() or path.stat().st_size > _MAX_RESULT_BYTES:
        said = legible((folder / "chamber.err").read_text(errors="replace").strip()[-400:])
        raise ApplianceError("unavailable", f"the chamber broke: {said}", hint="repeat with --keep and see chamber.err")
    result: dict[str, Any] = json.loads(path.read_bytes())
    if "error" in result:
        error = result["error"]
        raise ApplianceError(error["code"] if error["code"] in OUTCOMES else "unavailable", error["message"], hint=error["hint"])
    return result
