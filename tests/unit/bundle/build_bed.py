"""What tests of the build start from: a small source tree with a lock, wheels made on the spot, a signed model, a station with keys. No network."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.bundle.build.assemble import Build, Built, build_bundle
from appliance.bundle.build.definition import read_definition
from appliance.bundle.format.container import lay_out
from appliance.bundle.format.trust_root import TrustedKey
from appliance.bundle.keys import Station
from appliance.bundle.reader import open_bundle, read_manifest_unverified, verify_bundle
from appliance.bundle.verify import Policy, VerifiedBundle
from tests.unit.model_samples import EMBED, SIGNER, TINY, write_tiny

ISSUED_AT = 1795255200  # 2026-11-21T10:00:00Z
DEFINITION = """
schema_version = 1
name = "small"
valid_days = 30
[target]
os = "linux"
arch = "x86_64"
python = "3.11"
glibc = "2.36"
[licences]
deny = ["AGPL"]
"""
PROJECT = '[[component]]\nname = "project"\nkind = "project"\ninclude = ["appliance/*", "models.toml", "pyproject.toml"]\n'
DOCS = '[[component]]\nname = "docs"\nkind = "docs"\ninclude = ["docs/*"]\n'
WHEELS = '[[component]]\nname = "wheels"\nkind = "wheelhouse"\nlocks = ["requirements/runtime.lock"]\n'
MODELS = '[[component]]\nname = "models"\nkind = "models"\n'
IMAGES = '[[component]]\nname = "images"\nkind = "images"\nfolders = ["images/*"]\n'


@dataclass
class Listener:
    """A watcher that remembers."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def phase(self, title: str) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        assert done <= total


@dataclass
class Bed:
    """A source tree and a station."""

    root: Path
    station: Station
    home: Path
    cache: Path
    listener: Listener = field(default_factory=Listener)

    def define(self, *components: str, head: str = DEFINITION) -> Path:
        path = self.root / "bundles" / "small.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(head + "".join(components))
        return path

    def plan(self, output: Path) -> Build:
        return Build(read_definition(self.root / "bundles" / "small.toml"), output, self.station, self.home, self.cache, issued_at=ISSUED_AT)

    def build(self, output: Path, **changes: object) -> Built:
        return build_bundle(replace(self.plan(output), **changes), self.listener)

    def verified(self, path: Path) -> VerifiedBundle:
        with open_bundle(path) as file:
            return verify_bundle(file, self.station.pin, Policy(datetime.fromtimestamp(ISSUED_AT, UTC)))


def make_bed(folder: Path, *, station: Station | None = None) -> Bed:
    root = folder / "tree"
    write_tree(root, {"pyproject.toml": '[project]\nname = "appliance"\nversion = "1.2.3"\nlicense = "MIT"\n[project.scripts]\nappliance = "appliance:main"\n'})
    write_tree(root, {"appliance/__init__.py": "", "docs/a.md": "# A\n", "models.toml": "schema_version = 1\n"})
    write_tree(root, {"appliance/tables.py": 'SCHEMA = Schema(name="identity", migrations="m", head="0007")\n'})
    return Bed(root, station or make_station(folder / "station"), folder / "home", folder / "cache")


def make_station(folder: Path) -> Station:
    public = SIGNER.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    now = datetime.fromtimestamp(ISSUED_AT, UTC)
    return Station.create(folder, keys=2, threshold=2, model_keys=[TrustedKey("ecdsa-p256", public, "models")], now=now)


def write_tree(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def add_model(bed: Bed) -> Path:
    """A signed snapshot in the home, named by the tree's models.toml; returns its folder."""
    digest = write_tiny(bed.home / "models").digest
    text = EMBED.replace(f'digest = "sha256:{"0" * 64}"\n', f'digest = "sha256:{digest}"\n')
    (bed.root / "models.toml").write_text(f"schema_version = 1\n{text}")
    return bed.home / "models" / TINY


def make_wheel(folder: Path, name: str, version: str, headers: str = "License-Expression: MIT\n") -> Path:
    """A wheel of one empty module."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    members = {
        f"{name}/__init__.py": b"",
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{headers}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{member},sha256={_record(data)},{len(data)}\n" for member, data in members.items()) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**members, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), data)
    return path


def write_lock(bed: Bed, *wheels: Path) -> None:
    lines = []
    for wheel in wheels:
        name, version, *_ = wheel.name.split("-")
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
    write_tree(bed.root, {"requirements/runtime.lock": "".join(lines)})


def use_index(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """pip looks into ``folder`` and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def commit(root: Path) -> None:
    """Make ``root`` a checkout whose one commit is of :data:`ISSUED_AT`."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@t"), ("DATE", f"{ISSUED_AT} +0300"))}
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1", **who}
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(root), *command], check=True, env=environment, capture_output=True)


def read_bundle(path: Path) -> dict[str, bytes]:
    """Every file in the bundle, by path."""
    with open_bundle(path) as file:
        manifest = read_manifest_unverified(file)
        places = {member.name.rpartition("/")[2]: member for member in lay_out(file.heads().end, manifest.blobs)}
        return {
            entry.path: b"".join(file.read(places[chunk.sha256].content_offset, chunk.size) for chunk in entry.chunks) for entry in manifest.files
        }


def run_python(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``script`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def _record(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
