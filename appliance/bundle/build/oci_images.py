"""Collects container images: OCI image layout folders (image-spec 1.0) that the station has, every digest checked. Makes no images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from appliance.bundle.build.contents import UNKNOWN, Collected, Digest, Item, Package
from appliance.bundle.build.definition import ComponentDefinition
from appliance.kit.errors import ApplianceError

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
MAX_MANIFESTS: Final = 1000
MAX_DEPTH: Final = 4
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_BLOB: Final = re.compile(r"blobs/sha256/[0-9a-f]{64}")
_INDEX: Final = "index.json"
_TOP: Final = frozenset({"oci-layout", _INDEX})


def collect_images(root: Path, component: ComponentDefinition, version: str, digest: Digest) -> Collected:
    """The layout folders that match ``component.folders``.

    Raises:
        ApplianceError: ``invalid_request`` for a folder that is no whole OCI layout, naming what is wrong.
    """
    folders = sorted({folder for pattern in component.folders for folder in root.glob(pattern) if folder.is_dir()})
    items: list[Item] = []
    packages: list[Package] = []
    materials: dict[str, str] = {}
    for folder in folders:
        try:
            items += _files(folder, digest)
            identity = _check(folder, digest)
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as exc:
            hint = "export it again as an OCI layout (skopeo copy … oci:FOLDER)"
            raise ApplianceError("invalid_request", f"{folder} is no whole OCI layout: {exc}", hint=hint) from exc
        packages.append(Package("container", folder.name, identity[:12], f"pkg:oci/{folder.name}@sha256%3A{identity}", UNKNOWN, is_spdx=False, sha256=identity))
        materials[f"image:{folder.name}"] = identity
    return Collected(component.name, component.kind, version, tuple(items), tuple(packages), materials)


def _files(folder: Path, digest: Digest) -> list[Item]:
    if not _NAME.fullmatch(folder.name):
        raise ValueError("the name of the folder has other characters than a-z 0-9 . _ -")
    items: list[Item] = []
    for file in sorted(folder.rglob("*")):
        if file.is_dir() and not file.is_symlink():
            continue
        name = file.relative_to(folder).as_posix()
        if file.is_symlink() or not file.is_file() or not (name in _TOP or _BLOB.fullmatch(name)):
            raise ValueError(f"{name} does not belong there")
        if name not in _TOP and digest(file).sha256 != file.name:
            raise ValueError(f"{name} has another digest than its name says")
        items.append(Item(f"images/{folder.name}/{name}", file))
    return items


def _check(folder: Path, digest: Digest) -> str:
    """Follow every descriptor from ``index.json``; return the digest (hex) of the first manifest, or of the index when there are several."""
    if _read(folder / "oci-layout")["imageLayoutVersion"] != "1.0.0":
        raise ValueError("oci-layout: imageLayoutVersion is not 1.0.0")
    manifests = _read(folder / _INDEX)["manifests"]
    if not isinstance(manifests, list) or not 0 < len(manifests) <= MAX_MANIFESTS:
        raise ValueError("index.json: no manifests")
    for descriptor in manifests:
        _follow(folder, descriptor, digest, 0)
    return _hex(manifests[0]) if len(manifests) == 1 else digest(folder / _INDEX).sha256


def _follow(folder: Path, descriptor: Any, digest: Digest, depth: int) -> None:
    name = _hex(descriptor)
    blob = folder / "blobs" / "sha256" / name
    if depth > MAX_DEPTH or not blob.is_file():
        raise ValueError(f"the blob {name} is missing, or manifests are nested too deep")
    if digest(blob).size != descriptor["size"]:
        raise ValueError(f"the blob {name} has another size than its descriptor says")
    media_type = str(descriptor.get("mediaType", ""))
    if not media_type.endswith((".manifest.v1+json", ".index.v1+json")):
        return
    document = _read(blob)
    parts = document["manifests"] if media_type.endswith(".index.v1+json") else [document["config"], *document["layers"]]
    for part in parts[:MAX_MANIFESTS]:
        _follow(folder, part, digest, depth + 1)


def _hex(descriptor: Any) -> str:
    match = _DIGEST.fullmatch(str(descriptor["digest"]))
    if match is None:
        raise ValueError("a digest is not sha256")
    return match[1]


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_DOCUMENT_BYTES} bytes")
    return json.loads(data)
