"""What only services can judge for ``appliance doctor``: their files in the home, and whether each GGUF loads.

Asked of a process of theirs (``services.allinone.home_check``): the library may not know them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from appliance.cli.findings import Finding
from appliance.home import HOME_VARIABLE, Home

PROGRAM: Final = ("-m", "services.allinone.home_check")
_SECONDS: Final = 900


def examine_services(home: Home) -> Iterator[Finding]:
    """Findings; models are loaded only while no box runs: there may be no memory for two."""
    if not home.path.exists():
        return
    options = ["--box-is-down"] if home.running() is None else []
    try:
        done = subprocess.run(
            [sys.executable, *PROGRAM, *options], env={**os.environ, HOME_VARIABLE: str(home.path)}, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("services", "warn", f"they did not say within {_SECONDS} s how the home is", "see whether the disk is slow, then repeat")
        return
    yield from (msgspec.json.decode(line, type=Finding) for line in done.stdout.splitlines())
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        yield Finding("services", "fail", (said[-1] if said else f"status {done.returncode}")[:300], "reinstall the release: appliance bundle install")
