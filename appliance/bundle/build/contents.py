"""What collectors hand to the build: files with where they come from, and the packages they are for SBOM and licences. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from appliance.bundle.build.chunking import ChunkedFile

UNKNOWN: Final = "unknown"
OWN: Final = "LicenseRef-appliance"  # what stands for files of the project itself while pyproject.toml names no licence

Say = Callable[[str], None]
Digest = Callable[[Path], ChunkedFile]
"""Size, digest and chunks of a file, from the cache where it is unchanged; every byte that goes out is hashed again when it is copied."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the bundle: its path there, its mode, and its content as a file on this machine or as bytes."""

    path: str
    source: Path | bytes
    mode: str = "0644"


@dataclass(frozen=True, slots=True)
class Package:
    """One entry of an SBOM.

    Attributes:
        type: CycloneDX component type.
        name: as its ecosystem calls it.
        version: as its ecosystem writes it.
        purl: package URL; empty for plain files.
        licence: SPDX expression or free text; ``unknown``.
        is_spdx: whether ``licence`` is an SPDX expression.
        sha256: hex digest of its file (of its index where it has several files).
    """

    type: str
    name: str
    version: str
    purl: str
    licence: str
    is_spdx: bool
    sha256: str


@dataclass(frozen=True, slots=True)
class Collected:
    """One component, collected.

    Attributes:
        name: from the definition.
        kind: from the definition.
        version: of the component.
        items: its files, in any order.
        packages: what they are.
        materials: inputs for the provenance: URI → sha256 (hex).
    """

    name: str
    kind: str
    version: str
    items: tuple[Item, ...]
    packages: tuple[Package, ...] = ()
    materials: dict[str, str] = field(default_factory=dict)


class Watcher(Protocol):
    """Who is told how the build goes on."""

    def say(self, text: str) -> None:
        """One line for people."""

    def warn(self, text: str) -> None:
        """One line that people should not miss."""

    def phase(self, title: str) -> None:
        """Something long begins."""

    def progress(self, done: int, total: int) -> None:
        """Bytes of the phase; called from one thread at a time."""
