"""Collects Debian packages with their closure, and the lists that let apt install from the folder: ``Packages`` for apt, ``index.json`` for people.

Owns: what is remembered of a resolved closure (``closure-<key>.json`` in the cache), so that a build does not depend on what the mirror has
today unless it is asked to (``--refresh``). Does not own: resolving (``apt_closure``), reading packages (``deb_facts``).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from appliance.bundle.build.apt_closure import fetch_closure
from appliance.bundle.build.contents import UNKNOWN, Collected, Digest, Item, Package, Say
from appliance.bundle.build.deb_facts import control_fields, read_control, read_copyright
from appliance.bundle.build.definition import ComponentDefinition
from appliance.bundle.format import canonical_json
from appliance.bundle.format.manifest import Target
from appliance.bundle.keys import replace_file
from appliance.kit.errors import ApplianceError

_VERSION: Final = 3  # of what is remembered


@dataclass(frozen=True, slots=True)
class Deb:
    """A package: file name in the cache, sha256 (hex), size in bytes, control paragraph, licences."""

    file: str
    sha256: str
    size: int
    control: str
    licence: str


@dataclass(frozen=True, slots=True)
class PackageStore:
    """Packages on this machine: cache folder, target, digests of files, whom to tell; ``offline``: never start apt; ``refresh``: always ask it."""

    folder: Path
    target: Target
    digest: Digest
    say: Say
    offline: bool = False
    refresh: bool = False

    @property
    def archives(self) -> Path:
        """Where the packages lie."""
        return self.folder / "archives"

    def obtain(self, packages: Sequence[str]) -> tuple[Deb, ...]:
        """``packages`` with their closure. Raises ``unavailable``, ``invalid_request``."""
        key = sha256(f"{_VERSION} {sorted(packages)} {self.target.arch}".encode()).hexdigest()[:16]
        note = self.folder / f"closure-{key}.json"
        known = None if self.refresh and not self.offline else self._remembered(note)
        if known is not None:
            self.say("packages of the operating system: as resolved before; --refresh asks the mirror again")
            return known
        if self.offline:
            raise ApplianceError("unavailable", "the packages of the operating system were never fetched here", hint="build once with a network")
        self.say(f"resolving {len(packages)} packages of the operating system with apt")
        files = fetch_closure(self.folder, sorted(packages), self.target.arch)
        debs = _with_shared_licences([self._read(file) for file in files])
        replace_file(note, canonical_json.encode([asdict(deb) for deb in debs]))
        return debs

    def _read(self, file: Path) -> Deb:
        control = read_control(file)
        found = self.digest(file)
        return Deb(file.name, found.sha256, found.size, control, read_copyright(file, control_fields(control)["Package"]))

    def _remembered(self, note: Path) -> tuple[Deb, ...] | None:
        """What was resolved before, when every file is still there with its digest."""
        try:
            debs = tuple(Deb(**entry) for entry in json.loads(note.read_bytes()))
            whole = all(self.digest(self.archives / deb.file).sha256 == deb.sha256 for deb in debs)
        except (OSError, ValueError, TypeError, ApplianceError):
            return None
        return debs if whole and debs else None


def collect_os_packages(component: ComponentDefinition, version: str, store: PackageStore) -> Collected:
    """The packages that ``component`` names, and all that they need. Raises ``unavailable``."""
    debs = sorted(store.obtain(component.packages), key=_plain_name)
    index = canonical_json.encode({"schema_version": 1, "requested": sorted(component.packages), "packages": [_row(deb) for deb in debs]})
    listing = "\n".join(_stanza(deb) for deb in debs).encode()
    items = [Item(f"os/{_plain_name(deb)}", store.archives / deb.file) for deb in debs]
    items += [Item("os/index.json", index), Item("os/Packages", listing)]
    return Collected(
        component.name, component.kind, version, tuple(items), tuple(_described(deb) for deb in debs), {"os-packages:index.json": sha256(index).hexdigest()}
    )


def _plain_name(deb: Deb) -> str:
    """``<name>_<version without epoch>_<arch>.deb``: the epoch's colon is no character of a path in a bundle."""
    fields = control_fields(deb.control)
    return f"{fields['Package']}_{fields['Version'].rpartition(':')[2]}_{fields['Architecture']}.deb"


def _row(deb: Deb) -> dict[str, Any]:
    fields = control_fields(deb.control)
    return {
        "name": fields["Package"],
        "version": fields["Version"],
        "arch": fields["Architecture"],
        "file": _plain_name(deb),
        "sha256": deb.sha256,
        "size": deb.size,
        "depends": fields.get("Depends", ""),
        "pre_depends": fields.get("Pre-Depends", ""),
    }


def _stanza(deb: Deb) -> str:
    return f"{deb.control}Filename: ./{_plain_name(deb)}\nSize: {deb.size}\nSHA256: {deb.sha256}\n"


def _described(deb: Deb) -> Package:
    fields = control_fields(deb.control)
    version = quote(fields["Version"], safe=".+-~")
    purl = f"pkg:deb/{_vendor()}/{quote(fields['Package'], safe='.+-')}@{version}?arch={fields['Architecture']}"
    return Package("library", fields["Package"], fields["Version"], purl, deb.licence, is_spdx=False, sha256=deb.sha256)


def _vendor() -> str:
    try:
        return str(platform.freedesktop_os_release()["ID"])
    except (OSError, KeyError):
        return "debian"


def _with_shared_licences(debs: Sequence[Deb]) -> tuple[Deb, ...]:
    """Packages of one source share a copyright file through a link: follow it within the closure."""
    licences: Mapping[str, str] = {control_fields(deb.control)["Package"]: deb.licence for deb in debs}

    def resolved(deb: Deb) -> Deb:
        licence = deb.licence
        for _ in range(3):
            if licence.startswith("see "):
                licence = licences.get(licence.removeprefix("see "), UNKNOWN)
        return Deb(deb.file, deb.sha256, deb.size, deb.control, UNKNOWN if licence.startswith("see ") else licence)

    return tuple(resolved(deb) for deb in debs)
