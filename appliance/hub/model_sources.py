"""What lies at the place that an operator names: a folder of Hugging Face, a GGUF file, an ONNX folder, an Ollama store. Looks, copies nothing.

Owns: recognising the form, the list of files, what the form says of the model. Does not own: which files are allowed (``weight_files``), Ollama's
layout (``ollama_store``), what ``export`` wrote (``stored_snapshots``).

Invariant: no file is reached through a link that leads out of the source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from appliance.hub.gguf_header import MAGIC, check_gguf
from appliance.hub.snapshot_files import open_plain, read_plain
from appliance.hub.weight_files import is_left_out, refuse_by_name, refused
from appliance.kit.errors import ApplianceError

MAX_FILES: Final = 10_000
_MAX_CONFIG_BYTES: Final = 1024 * 1024
_FORMS_HINT: Final = "give a Hugging Face folder, a GGUF file, an ONNX folder, an exported Ollama store, or what `appliance models export` wrote"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model before it is imported.

    Attributes:
        form: ``hf``, ``gguf``, ``safetensors``, ``onnx`` — the ``format`` of the entry it becomes.
        files: name in the snapshot → where it lies.
        digests: name → sha256 (hex) that the source promises; may lack any.
        left_out: what stays behind (pictures, hidden files, other frameworks' weights).
        max_context: tokens; 0 = the source does not say.
        dimensions: length of vectors; 0 = the source does not say.
        license: as the source says it.
        origin: what to write down about where it came from.
    """

    form: str
    files: Mapping[str, Path]
    digests: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    max_context: int = 0
    dimensions: int = 0
    license: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)

    def with_origin(self, origin: Mapping[str, str]) -> ModelSource:
        """The same files, said to come from elsewhere."""
        return replace(self, origin={key: value for key, value in origin.items() if value})

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(path.stat().st_size for path in self.files.values())


def look_at(place: Path, kind: str = "") -> ModelSource:
    """Recognise what lies at ``place``; ``kind`` decides where a folder has weights in several forms.

    Raises:
        ApplianceError: ``not_found``, ``model_refused`` for something else, or for a file that must not be imported.
    """
    if place.is_file():
        return _single_file(place)
    if not place.is_dir():
        raise ApplianceError("not_found", f"there is nothing at {place}", hint=_FORMS_HINT)
    folder = _cached_revision(place)
    files, left_out = _files_of(folder, within=place)
    for name in files:
        refuse_by_name(name)
    _refuse_collisions(files)
    config = _config(files.get("config.json"))
    facts: dict[str, Any] = {
        "files": files,
        "left_out": left_out,
        "max_context": _number(config, "max_position_embeddings", "n_positions", "max_sequence_length"),
        "dimensions": _number(config, "hidden_size", "dim", "n_embd"),
        "origin": {"folder": place.name},
    }
    if kind != "llm" and any(name.endswith(".onnx") for name in files):
        return ModelSource("onnx", **facts)
    if "config.json" in files and any(name.endswith(".safetensors") for name in files):
        return ModelSource("hf", **facts)
    single = [name for name in files if name.endswith(".gguf")]
    if single:
        return _with_gguf_facts(ModelSource("gguf", **facts), files[single[0]], single[0])
    if any(name.endswith(".onnx") for name in files):
        return ModelSource("onnx", **facts)
    raise ApplianceError("model_refused", f"no weights of a known form in {place}", hint=_FORMS_HINT)


def _single_file(place: Path) -> ModelSource:
    if place.is_symlink():
        raise refused(place.name, "is a link", "name the file itself")
    refuse_by_name(place.name)
    with place.open("rb") as stream:
        magic = stream.read(4)
    origin = {"file": place.name}
    if magic == MAGIC:
        name = place.name if place.suffix.lower() == ".gguf" else "model.gguf"
        return _with_gguf_facts(ModelSource("gguf", {name: place}, origin=origin), place, place.name)
    if place.suffix.lower() == ".safetensors":
        return ModelSource("safetensors", {place.name: place}, origin=origin)
    raise ApplianceError("model_refused", f"{place.name} is no model file of a known form", hint=_FORMS_HINT)


def _with_gguf_facts(source: ModelSource, file: Path, name: str) -> ModelSource:
    try:
        with open_plain(file) as stream:
            facts = check_gguf(stream, os.fstat(stream.fileno()).st_size)
    except (OSError, ValueError) as exc:
        raise refused(name, str(exc), "fetch or convert it again: it is damaged") from exc
    origin = dict(source.origin) | {key: value for key, value in (("architecture", facts.architecture), ("model", facts.name)) if value}
    return ModelSource(
        "gguf", source.files, source.digests, source.left_out, facts.max_context or source.max_context, 0, facts.license or source.license, origin
    )


def _cached_revision(place: Path) -> Path:
    """The cache of huggingface_hub (``models--…``) keeps revisions as links to blobs beside them: take the one that ``refs/main`` names, or the only one."""
    revisions = sorted(entry for entry in (place / "snapshots").glob("*") if entry.is_dir()) if (place / "refs").is_dir() else []
    if not revisions:
        return place
    main = place / "refs" / "main"
    named = main.read_text(encoding="utf-8", errors="replace").strip()[:100] if main.is_file() else ""
    chosen = [revision for revision in revisions if revision.name == named] or (revisions if len(revisions) == 1 else [])
    if not chosen:
        hint = "delete the other revisions, or copy the one you want with links resolved (cp -rL)"
        raise ApplianceError("model_refused", f"{place} has {len(revisions)} revisions and none is main", hint=hint)
    return chosen[0]


def _files_of(folder: Path, *, within: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    files: dict[str, Path] = {}
    left_out: list[str] = []
    inside = within.resolve()
    for root, folders, names in os.walk(folder):  # does not follow links to folders
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for linked in [name for name in folders if (Path(root) / name).is_symlink()]:
            raise refused(linked, "is a link to a folder", "copy the model with links resolved (cp -rL)")
        for name in sorted(names):
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            if is_left_out(relative):
                left_out.append(relative)
                continue
            files[relative] = _resolved(path, relative, inside)
            if len(files) > MAX_FILES:
                raise ApplianceError("model_refused", f"{folder} has more than {MAX_FILES} files", hint=_FORMS_HINT)
    return files, tuple(left_out)


def _resolved(path: Path, name: str, inside: Path) -> Path:
    try:
        target = path.resolve(strict=True)
    except OSError as exc:
        raise refused(name, "is a link to nothing", "fetch the model again") from exc
    if path.is_symlink() and not target.is_relative_to(inside):
        raise refused(name, "is a link that leads out of the source", "name the whole cache folder (models--…), or copy with links resolved (cp -rL)")
    if not target.is_file():
        raise refused(name, "is not a plain file", "take it out of the folder")
    return target


def _refuse_collisions(files: Mapping[str, Path]) -> None:
    seen: dict[str, str] = {}
    for name in files:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise refused(name, f"differs from {other} only in case", "rename one: some file systems keep only one of them")


def _config(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        config = json.loads(read_plain(path, _MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as exc:
        raise refused("config.json", f"cannot be read: {exc}", "fetch the model again") from exc
    return config if isinstance(config, dict) else {}


def _number(config: Mapping[str, Any], *keys: str) -> int:
    found = [value for value in map(config.get, keys) if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10_000_000]
    return found[0] if found else 0
