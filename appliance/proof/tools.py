"""The programs that the proof needs, checked before anything is done. Owns: their names, packages and versions.

There is no weaker proof without them: what is missing is an error that names the package, which the bundle carries among its ``os-packages``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.kit.errors import ApplianceError

PACKAGES: Final[Mapping[str, str]] = {
    "strace": "strace",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STRACE_OLDEST: Final = (5, 17)  # the first with --decode-pids=comm


@dataclass(frozen=True, slots=True)
class Tools:
    """Absolute paths of the programs, by name."""

    paths: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.paths[name]


def find_tools() -> Tools:
    """All of them.

    Raises:
        ApplianceError: ``unavailable`` naming the Debian packages of what is missing or too old.
    """
    found = {name: shutil.which(name, path=SEARCH_PATH) for name in PACKAGES}
    missing = sorted({PACKAGES[name] for name, path in found.items() if path is None})
    if missing:
        hint = f"install the Debian packages {', '.join(missing)}; a bundle carries them in its os-packages: dpkg -i SITE/current/os/NAME*.deb"
        raise ApplianceError("unavailable", f"the proof needs {', '.join(name for name, path in found.items() if path is None)}", hint=hint)
    tools = Tools({name: path for name, path in found.items() if path})
    version = version_of(tools["strace"], "--version")
    numbers = re.search(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _STRACE_OLDEST:
        raise ApplianceError(
            "unavailable", f"strace is too old for the proof: {version[:60]}", hint="install strace 5.17 or newer (Debian 12 has 6.1)"
        )
    return tools


def version_of(path: str, flag: str) -> str:
    """The first line that a program says of itself."""
    try:
        ended = subprocess.run([path, flag], capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (ended.stdout or ended.stderr).decode(errors="replace").split("\n", 1)[0].strip()[:120]


def host_facts(tools: Tools) -> dict[str, str | int]:
    """What the report says of the machine: nothing that names it or its owner."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "strace": version_of(tools["strace"], "--version"),
        "nft": version_of(tools["nft"], "--version"),
        "iproute2": version_of(tools["ip"], "-V"),
        "as_root": int(os.geteuid() == 0),
    }
