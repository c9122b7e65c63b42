"""Reads a hash-pinned lock (``requirements/*.lock``). Pure but for reading the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError

_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_PIN: Final = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)(?P<rest>.*)")


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One pin: normalised name, version, allowed sha256 (hex) of its files."""

    name: str
    version: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock: its packages and the digest of the file."""

    path: Path
    packages: tuple[LockedPackage, ...]
    sha256: str


def read_lock(path: Path) -> LockFile:
    """Read the lock at ``path``.

    Raises:
        ApplianceError: ``not_found``; ``invalid_request`` for a line without a hash or with what is not understood.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ApplianceError("not_found", f"cannot read the lock {path}: {exc.strerror}", hint="make lock") from exc
    lines = data.decode().replace("\\\n", " ").splitlines()
    packages = tuple(_package(path, line) for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return LockFile(path, packages, sha256(data).hexdigest())


def normalised(name: str) -> str:
    """The one spelling of a package name (packaging specification, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _package(path: Path, line: str) -> LockedPackage:
    match = _PIN.fullmatch(line.strip())
    if match is None or ";" in match["rest"] or not (hashes := frozenset(_HASH.findall(match["rest"]))):
        raise ApplianceError("invalid_request", f"{path}: expected name==version with hashes, found {line.strip()[:80]!r}", hint="make lock")
    return LockedPackage(normalised(match["name"]), match["version"], hashes)
