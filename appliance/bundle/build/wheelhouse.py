"""Collects wheels: exactly those that the locks name, for the target platform, fetched by pip into a cache.

Owns: the cache of wheels. Does not own: which package index is asked; that is pip's configuration on this machine, and a wheel counts only
with a digest that the lock names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from appliance.bundle.build.contents import Collected, Digest, Item, Package, Say
from appliance.bundle.build.definition import ComponentDefinition
from appliance.bundle.build.lock_file import LockedPackage, LockFile, normalised, read_lock
from appliance.bundle.build.wheel_metadata import read_wheel_licence
from appliance.bundle.format.manifest import Target
from appliance.kit.errors import ApplianceError

PIP_TIMEOUT_SECONDS: Final = 1800
_LEGACY: Final[Mapping[str, int]] = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
"""Old names of manylinux_2_<minor> (PEP 600)."""


@dataclass(frozen=True, slots=True)
class WheelStore:
    """Wheels on this machine.

    Attributes:
        folder: cache; one folder per lock and target.
        target: platform that wheels must fit.
        glibc_minor: the target's glibc is 2.<this>.
        digest: digests of files.
        say: told before pip is started.
        offline: never start pip.
    """

    folder: Path
    target: Target
    glibc_minor: int
    digest: Digest
    say: Say
    offline: bool = False

    def obtain(self, lock: LockFile) -> dict[LockedPackage, Path]:
        """One wheel per package of ``lock``.

        Raises:
            ApplianceError: ``unavailable`` naming the packages that cannot be had.
        """
        key = sha256(f"{lock.sha256} {self.target} {self.glibc_minor}".encode()).hexdigest()[:16]
        folder = self.folder / f"{lock.path.stem}-{key}"
        found = self._find(lock, folder)
        if len(found) < len(lock.packages) and not self.offline:
            self.say(f"fetching {len(lock.packages) - len(found)} wheels of {lock.path.name} with pip")
            self._fetch(lock, folder)
            found = self._find(lock, folder)
        missing = [f"{package.name} {package.version}" for package in lock.packages if package not in found]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            hint = "build once with a network, or put the wheels into that folder"
            raise ApplianceError("unavailable", f"no wheel for {', '.join(missing[:5])}{more} in {folder}", hint=hint)
        return found

    def _find(self, lock: LockFile, folder: Path) -> dict[LockedPackage, Path]:
        wheels = {self.digest(path).sha256: path for path in sorted(folder.glob("*.whl"))} if folder.is_dir() else {}
        return {package: wheels[digest] for package in lock.packages for digest in sorted(package.hashes & wheels.keys())[:1]}

    def _fetch(self, lock: LockFile, folder: Path) -> None:
        """Into a folder beside, then over by rename: a wheel in the cache is whole."""
        fresh = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            _run_pip([*self._platform_options(), "-d", str(fresh), "-r", str(lock.path)], lock.path.name)
            folder.mkdir(parents=True, exist_ok=True)
            for wheel in fresh.glob("*.whl"):
                wheel.replace(folder / wheel.name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _platform_options(self) -> list[str]:
        arch = self.target.arch
        tags = [f"manylinux_2_{minor}_{arch}" for minor in range(self.glibc_minor, 4, -1)]
        tags += [f"{name}_{arch}" for name, minor in _LEGACY.items() if minor <= self.glibc_minor]
        options = ["--implementation", "cp", "--python-version", self.target.python]
        return options + [option for tag in (*tags, f"linux_{arch}") for option in ("--platform", tag)]


def collect_wheels(root: Path, component: ComponentDefinition, version: str, store: WheelStore) -> Collected:
    """The wheels of the locks that ``component`` names. Raises ``unavailable``, ``not_found``, ``invalid_request``."""
    folder = f"wheelhouse/{component.folder}/" if component.folder else "wheelhouse/"
    wheels: dict[str, tuple[LockedPackage, Path]] = {}
    materials: dict[str, str] = {}
    for name in component.locks:
        lock = read_lock(root / name)
        materials[f"file:{name}"] = lock.sha256
        for package, wheel in store.obtain(lock).items():
            wheels[wheel.name] = (package, wheel)
    return Collected(
        component.name,
        component.kind,
        version,
        tuple(Item(folder + name, wheel) for name, (_, wheel) in sorted(wheels.items())),
        tuple(_described(package, wheel, store.digest) for _, (package, wheel) in sorted(wheels.items())),
        materials,
    )


def _described(package: LockedPackage, wheel: Path, digest: Digest) -> Package:
    licence, is_spdx = read_wheel_licence(wheel)
    purl = f"pkg:pypi/{normalised(package.name)}@{package.version}"
    return Package("library", package.name, package.version, purl, licence, is_spdx, digest(wheel).sha256)


def _run_pip(options: Sequence[str], what: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes"]
    command = [*pip, "--only-binary", ":all:", *options]
    environment = os.environ | {"PIP_NO_INPUT": "1", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as exc:
        raise ApplianceError("unavailable", f"pip did not fetch {what} within {PIP_TIMEOUT_SECONDS} s", hint="check the network") from exc
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.strip().splitlines() or ["pip failed"]
        raise ApplianceError(
            "unavailable", f"pip cannot fetch {what}: {errors[0].removeprefix('ERROR: ')[:300]}", hint="check pip's index: pip config list"
        )
