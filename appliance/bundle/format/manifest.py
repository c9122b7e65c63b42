"""``manifest.json``: what is in a bundle, as values. Pure: bytes in, values out. The format is in ``docs/bundle-format.md``.

Invariants of an accepted manifest: canonical, within limits, every path safe and under the folder of its component's kind, components and
files sorted, sizes and digests consistent (the same blob has one size; a file of one chunk has that chunk's digest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.paths import check_path, check_paths
from appliance.kit.errors import ApplianceError

SCHEMA_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 40 * 1024 * 1024
MAX_FILES: Final = 100_000
MAX_CHUNKS: Final = 250_000
MAX_CHUNK_BYTES: Final = 4 * 1024 * 1024
MAX_COMPONENTS: Final = 1000
FOLDERS: Final[Mapping[str, str]] = {
    "ansible": "app/ansible/",
    "docs": "app/docs/",
    "images": "images/",
    "metadata": "meta/",
    "models": "models/",
    "os-packages": "os/",
    "project": "app/",
    "smoke-tests": "app/smoke-tests/",
    "wheelhouse": "wheelhouse/",
}
_MAX_TABLES: Final = MAX_FILES + MAX_COMPONENTS + 2
_MAX_VALUES: Final = 6 * _MAX_TABLES + 2 * MAX_CHUNKS
MODES: Final = {"0644": 0o644, "0755": 0o755}
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A blob as part of a file: sha256 (hex) and length in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file: path in the generation, ``0644`` or ``0755``, its digest, and the chunks it is the concatenation of."""

    path: str
    mode: str
    size: int
    sha256: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the appliance that is delivered as one."""

    name: str
    kind: str
    version: str
    files: tuple[BundleFile, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """The platform a bundle is made for; each field must equal the site's."""

    os: str
    arch: str
    python: str


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself. ``sequence`` orders releases of one ``name``."""

    name: str
    version: str
    sequence: int
    issued_at: datetime
    expires_at: datetime
    target: Target
    components: tuple[Component, ...]

    @property
    def files(self) -> Iterator[BundleFile]:
        """Files of all components, in order."""
        return (file for component in self.components for file in component.files)

    @cached_property
    def blobs(self) -> tuple[Chunk, ...]:
        """The distinct chunks in the order in which the manifest first names them: the order of the container."""
        return tuple({chunk.sha256: chunk for file in self.files for chunk in file.chunks}.values())

    def to_bytes(self) -> bytes:
        """Canonical form; what is signed."""
        return canonical_json.encode(
            {
                "schema_version": SCHEMA_VERSION,
                "name": self.name,
                "version": self.version,
                "sequence": self.sequence,
                "issued_at": self.issued_at.strftime(_TIME),
                "expires_at": self.expires_at.strftime(_TIME),
                "target": {"os": self.target.os, "arch": self.target.arch, "python": self.target.python},
                "components": [_component_document(component) for component in self.components],
            }
        )

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the canonical form: the identity of a bundle."""
        return sha256(self.to_bytes()).hexdigest()

    @property
    def generation(self) -> str:
        """Name of the folder it is installed into."""
        return f"{self.sequence}-{self.digest[:12]}"


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest strictly.

    Raises:
        ApplianceError: ``bundle_invalid`` saying what is wrong.
    """
    document = canonical_json.decode(data, "manifest.json", limit_bytes=MAX_MANIFEST_BYTES, limit_tables=_MAX_TABLES, limit_values=_MAX_VALUES)
    try:
        return _manifest(document)
    except (ValueError, TypeError, KeyError) as exc:
        raise invalid(f"manifest.json: {exc}") from exc


def invalid(message: str) -> ApplianceError:
    """The refusal of a malformed bundle."""
    return canonical_json.refusal("bundle_invalid", message)


def parse_time(value: object) -> datetime:
    """``2026-11-21T10:00:00Z``; raises ValueError."""
    moment = datetime.strptime(_text(value, "time"), _TIME).replace(tzinfo=UTC)
    if moment.strftime(_TIME) != value:
        raise ValueError("a time is written like 2026-11-21T10:00:00Z")
    return moment


def format_time(moment: datetime) -> str:
    """The one spelling of a time, in UTC."""
    return moment.astimezone(UTC).strftime(_TIME)


def exact_keys(document: object, keys: set[str], what: str) -> dict[str, Any]:
    """``document`` when it is a table with exactly ``keys``; raises ValueError."""
    if not isinstance(document, dict) or set(document) != keys:
        raise ValueError(f"{what}: expected exactly the keys {', '.join(sorted(keys))}")
    return document


def check_digest(value: object) -> str:
    """64 lower-case hex digits; raises ValueError."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("a digest has 64 lower-case hex digits")
    return value


def whole_number(value: object, limit: int, what: str) -> int:
    """A whole number from 0 to ``limit``; raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise ValueError(f"{what}: expected a whole number from 0 to {limit}")
    return value


def _manifest(document: Any) -> Manifest:
    if isinstance(document, dict) and not canonical_json.is_integer(document.get("schema_version"), SCHEMA_VERSION):
        raise ValueError(f"schema_version {str(document.get('schema_version'))[:20]!r} is not known here; this release reads {SCHEMA_VERSION}")
    top = exact_keys(document, {"schema_version", "name", "version", "sequence", "issued_at", "expires_at", "target", "components"}, "top level")
    components = _components(top["components"])
    target = exact_keys(top["target"], {"os", "arch", "python"}, "target")
    manifest = Manifest(
        name=_matching(_NAME, top["name"], "name"),
        version=_matching(_VERSION, top["version"], "version"),
        sequence=whole_number(top["sequence"], 2**53 - 1, "sequence"),
        issued_at=parse_time(top["issued_at"]),
        expires_at=parse_time(top["expires_at"]),
        target=Target(*(_matching(_VERSION, target[key], key) for key in ("os", "arch", "python"))),
        components=components,
    )
    check_paths(file.path for file in manifest.files)
    _check_blob_sizes(manifest)
    return manifest


def _components(raw: object) -> tuple[Component, ...]:
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_COMPONENTS:
        raise ValueError(f"components: expected 1 to {MAX_COMPONENTS}")
    if sum(len(entry["files"]) for entry in raw if isinstance(entry, dict) and isinstance(entry.get("files"), list)) > MAX_FILES:
        raise ValueError(f"more than {MAX_FILES} files")
    components = tuple(_component(entry) for entry in raw)
    names = [component.name for component in components]
    if names != sorted(set(names)):
        raise ValueError("components must be sorted by name and occur once")
    return components


def _component(raw: object) -> Component:
    entry = exact_keys(raw, {"name", "kind", "version", "files"}, "component")
    name = _matching(_NAME, entry["name"], "component name")
    if entry["kind"] not in FOLDERS:
        raise ValueError(f"component {name}: unknown kind {str(entry['kind'])[:60]!r}")
    if not isinstance(entry["files"], list):
        raise TypeError(f"component {name}: files must be a list")
    files = tuple(_file(item, FOLDERS[entry["kind"]]) for item in entry["files"])
    paths = [file.path for file in files]
    if paths != sorted(paths):
        raise ValueError(f"component {name}: files must be sorted by path")
    return Component(name, entry["kind"], _matching(_VERSION, entry["version"], "component version"), files)


def _file(raw: object, folder: str) -> BundleFile:
    entry = exact_keys(raw, {"path", "mode", "size", "sha256", "chunks"}, "file")
    path = check_path(entry["path"])
    if not path.startswith(folder):
        raise ValueError(f"{path}: does not lie under {folder}")
    if entry["mode"] not in MODES:
        raise ValueError(f"{path}: mode must be 0644 or 0755")
    if not isinstance(entry["chunks"], list):
        raise TypeError(f"{path}: chunks must be a list")
    chunks = tuple(_chunk(item) for item in entry["chunks"])
    size = whole_number(entry["size"], 2**53 - 1, f"{path}: size")
    digest = check_digest(entry["sha256"])
    if sum(chunk.size for chunk in chunks) != size:
        raise ValueError(f"{path}: its chunks do not make up its size")
    if (len(chunks) == 1 and chunks[0].sha256 != digest) or (not chunks and digest != sha256().hexdigest()):
        raise ValueError(f"{path}: its digest is not that of its only chunk")
    return BundleFile(path, entry["mode"], size, digest, chunks)


def _chunk(raw: object) -> Chunk:
    if not isinstance(raw, list) or len(raw) != 2:
        raise ValueError("a chunk is a digest and a size")
    size = whole_number(raw[1], MAX_CHUNK_BYTES, "chunk size")
    if size == 0:
        raise ValueError("a chunk is never empty")
    return Chunk(check_digest(raw[0]), size)


def _check_blob_sizes(manifest: Manifest) -> None:
    sizes: dict[str, int] = {}
    count = 0
    for file in manifest.files:
        for chunk in file.chunks:
            count += 1
            if sizes.setdefault(chunk.sha256, chunk.size) != chunk.size:
                raise ValueError(f"blob {chunk.sha256} has two sizes")
    if count > MAX_CHUNKS:
        raise ValueError(f"more than {MAX_CHUNKS} chunks")


def _component_document(component: Component) -> dict[str, Any]:
    files = [
        {
            "path": file.path,
            "mode": file.mode,
            "size": file.size,
            "sha256": file.sha256,
            "chunks": [[chunk.sha256, chunk.size] for chunk in file.chunks],
        }
        for file in component.files
    ]
    return {"name": component.name, "kind": component.kind, "version": component.version, "files": files}


def _matching(pattern: re.Pattern[str], value: object, what: str) -> str:
    if not pattern.fullmatch(_text(value, what)):
        raise ValueError(f"{what}: unexpected characters in {str(value)[:60]!r}")
    return _text(value, what)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected text")
    return value
