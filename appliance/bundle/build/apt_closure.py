"""Asks apt for packages with everything they need, computed against an empty list of installed packages, in folders of its own.

Owns: running apt-get. Does not own: which mirror is asked; that is apt's configuration on this machine, as are the keys that sign its lists.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from appliance.kit.errors import ApplianceError

APT_TIMEOUT_SECONDS: Final = 1800
MAX_PACKAGES: Final = 5000
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_LINE: Final = re.compile(r"'[^']*' (?P<file>[A-Za-z0-9.+~%_-]+\.deb) \d+( .*)?")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def fetch_closure(folder: Path, packages: Sequence[str], arch: str) -> list[Path]:
    """Fetch ``packages`` and all they need into ``folder/archives``; apt checks them against its signed lists.

    Args:
        folder: for apt's lists and archives; kept for the next time.
        packages: names.
        arch: of the target, as ``uname -m`` says it.

    Returns:
        The files, sorted by name.

    Raises:
        ApplianceError: ``unavailable`` with what apt said.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None or arch not in ARCHITECTURES:
        hint = "build on a Debian-family station, or leave them out: --without os-packages"
        raise ApplianceError("unavailable", f"packages of the operating system for {arch} cannot be collected here: no apt-get", hint=hint)
    if bad := [name for name in packages if not _NAME.fullmatch(name)]:
        raise ApplianceError("invalid_request", f"{bad[0]!r} is no package name", hint="packages in the definition are names for apt")
    options = _options(folder, ARCHITECTURES[arch], "archives")
    _run(["apt-get", *options, "update"], "read the package lists")
    install = ["--yes", "--no-install-recommends", "install", *packages]
    nothing_there = _options(folder, ARCHITECTURES[arch], "no-archives")  # apt does not name what it has already
    listing = _run(["apt-get", *nothing_there, "--print-uris", *install], "resolve the packages")
    wanted = _file_names(listing)
    _run(["apt-get", *options, "--download-only", *install], "fetch the packages")
    found = {unquote(file.name): file for file in (folder / "archives").glob("*.deb")}
    if missing := sorted(wanted - found.keys()):
        raise ApplianceError("unavailable", f"apt did not fetch {missing[0]}", hint=f"delete {folder} and build again")
    return [found[name] for name in sorted(wanted)]


def _file_names(listing: str) -> set[str]:
    """Names in the output of ``--print-uris``, unquoted. Raises ``unavailable`` for a line that is not understood: nothing may be left out."""
    names: set[str] = set()
    for line in listing.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None and line.startswith("'"):
            raise ApplianceError("unavailable", f"apt says what is not understood: {line[:120]!r}", hint="or leave them out: --without os-packages")
        if match is not None:
            names.add(unquote(match["file"]))
    if not 0 < len(names) <= MAX_PACKAGES:
        raise ApplianceError("unavailable", f"apt names {len(names)} packages; 1 to {MAX_PACKAGES} are taken", hint="check the definition")
    return names


def _options(folder: Path, architecture: str, archives: str) -> list[str]:
    for name in ("state/lists/partial", f"{archives}/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    status = folder / "state" / "status"
    status.write_bytes(b"")
    settings = {
        "Dir::State": str(folder / "state"),
        "Dir::State::status": str(status),
        "Dir::State::lists": str(folder / "state" / "lists"),
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": str(folder / archives),
        "Dir::Log": str(folder / "state"),
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Keep-Downloaded-Packages": "true",
        "Acquire::Languages": "none",
    }
    if os.geteuid() == 0:
        settings["APT::Sandbox::User"] = "root"  # its own user may not enter our cache
    return ["-q=2", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]


def _run(command: list[str], what: str) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=APT_TIMEOUT_SECONDS, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ApplianceError("unavailable", f"apt cannot {what}: {exc}", hint="check the network, or: --without os-packages") from exc
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.strip().splitlines() or ["no reason given"]
        raise ApplianceError("unavailable", f"apt cannot {what}: {errors[0][:300]}", hint="check apt's sources, or: --without os-packages")
    return done.stdout
