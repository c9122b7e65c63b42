"""Reads an exported Ollama store: ``manifests/<registry>/<namespace>/<name>/<tag>`` and ``blobs/sha256-<hex>``.

Owns: the layout and which layer becomes which file. Does not own: whether the files are fit (``weight_files``), copying them. Every layer is known
by its digest, which the copy is checked against.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from appliance.hub.model_sources import ModelSource
from appliance.hub.snapshot_files import read_plain
from appliance.hub.weight_files import refused
from appliance.kit.errors import ApplianceError

_MAX_MANIFEST_BYTES: Final = 1024 * 1024
_MAX_LAYERS: Final = 64
_MEDIA: Final = "application/vnd.ollama.image."
# kind of layer → file in the snapshot
_FILES: Final = {
    "model": "model.gguf",
    "projector": "projector.gguf",
    "template": "template.txt",
    "system": "system.txt",
    "params": "params.json",
    "messages": "messages.json",
    "license": "LICENSE",
}
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")


def is_ollama_store(place: Path) -> bool:
    """Whether ``place`` has the two folders."""
    return (place / "manifests").is_dir() and (place / "blobs").is_dir()


def look_at_ollama(place: Path, pick: str = "") -> ModelSource:
    """The model ``pick`` (``name:tag``; empty: the only one) of the store.

    Raises:
        ApplianceError: ``invalid_request`` when several models are there and none is picked, ``model_refused`` for a store that does not hold together.
    """
    manifest = _chosen(place, pick)
    label = _label(manifest)
    files: dict[str, Path] = {}
    digests: dict[str, str] = {}
    for layer in _layers(manifest, label):
        kind = str(layer.get("mediaType", "")).removeprefix(_MEDIA)
        name = _FILES.get(kind)
        digest = _DIGEST.fullmatch(str(layer.get("digest")))
        if name is None or digest is None:
            raise refused(label, f"has a layer that is not known here ({str(kind)[:80]})", "convert the model to GGUF and import the file")
        name = name if name not in files else f"{name}-{len(files)}"  # some models have two licences
        blob = place / "blobs" / f"sha256-{digest[1]}"
        if blob.is_symlink() or not blob.is_file() or blob.stat().st_size != layer.get("size"):
            raise refused(f"{label}: blobs/{blob.name}", "is missing, a link, or of another size", "copy the store again")
        files[name], digests[name] = blob, digest[1]
    if "model.gguf" not in files:
        raise refused(label, "has no GGUF weights", "convert the model to GGUF and import the file")
    return ModelSource("gguf", files, digests, origin={"ollama": label})


def _chosen(place: Path, pick: str) -> Path:
    root = place / "manifests"
    found = [path for path in sorted(root.glob("*/*/*/*"))[:1000] if path.is_file() and not path.is_symlink()]
    chosen = [path for path in found if not pick or pick in {_label(path), path.parent.name}]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(map(_label, found)) or "none"
    what = "no such model" if pick else "several models, or none,"
    raise ApplianceError("invalid_request", f"{what} in the Ollama store {place}", hint=f"choose one with --pick NAME:TAG; there: {names}")


def _label(manifest: Path) -> str:
    return f"{manifest.parent.name}:{manifest.name}"


def _layers(manifest: Path, label: str) -> list[dict[str, Any]]:
    try:
        layers = json.loads(read_plain(manifest, _MAX_MANIFEST_BYTES))["layers"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise refused(label, f"has a manifest that cannot be read: {exc}", "copy the store again") from exc
    if not isinstance(layers, list) or not 0 < len(layers) <= _MAX_LAYERS or not all(isinstance(layer, dict) for layer in layers):
        raise refused(label, "has a manifest without layers", "copy the store again")
    return layers
