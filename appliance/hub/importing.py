"""Import: a model from outside becomes the next immutable, signed snapshot, and an alias may point at it.

Owns: the copy (streamed, hashed on the way, holes stay holes), the version number, the facts written into the index. Does not own: what may come in
(``weight_files``), what lies at the source (``model_sources``, ``ollama_store``, ``stored_snapshots``), the entry in models.toml (``aliasing``).

Invariants:
1. Memory does not grow with the model; every file is inspected before the copy starts, and its copy once more.
2. Nothing is visible before everything is copied, checked, signed and durable; what a killed import left is removed by the next.
3. The same files imported twice are one snapshot.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Final

from appliance.hub.model_sources import ModelSource
from appliance.hub.model_spec import Kind
from appliance.hub.model_trust import ModelSigner, home_signer
from appliance.hub.snapshot_files import open_plain
from appliance.hub.snapshot_index import FileEntry
from appliance.hub.snapshot_writing import hub_lock, remove_unfinished, write_snapshot
from appliance.hub.snapshots import Snapshot, open_snapshot, verify
from appliance.hub.weight_files import check_content, refuse_by_name, refused
from appliance.kit.errors import ApplianceError
from appliance.kit.ownership import acting_as_caller

Progress = Callable[[int], None]
_BLOCK_BYTES: Final = 1024 * 1024
_ZEROS: Final = bytes(_BLOCK_BYTES)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What the operator says of a model; empty or 0 = what the source says.

    Attributes:
        kind: ``embed``, ``llm`` or ``rerank``.
        name: folder name without the version.
        license: SPDX expression.
        languages: ISO 639-1 codes.
        max_context: tokens.
        dimensions: length of vectors.
        version: semantic version.
    """

    kind: Kind
    name: str
    license: str = ""
    languages: tuple[str, ...] = ()
    max_context: int = 0
    dimensions: int = 0
    version: str = ""


def import_model(home: Path, source: ModelSource, request: ImportRequest, progress: Progress = lambda _bytes: None) -> Snapshot:
    """Copy ``source`` into the hub of ``home``.

    Args:
        home: the appliance home.
        source: what to import.
        request: what it becomes.
        progress: called with the number of bytes that were just copied.

    Raises:
        ApplianceError: ``model_refused``, ``invalid_request``, ``disk_full``; ``model_refused`` too on a sealed site that has no key to sign with.
    """
    check_request(source, request)
    hub = home / "models"
    signer = required_signer(home)
    for name, file in source.files.items():
        refuse_by_name(name)
        check_content(file, name)
    with hub_lock(hub):
        remove_unfinished(hub)
        _refuse_full_disk(hub, source)
        facts = _facts(source, request)
        path = f"{request.kind}/{request.name}-v{next_version(hub, request.kind, request.name)}"

        def fill(folder: Path) -> Mapping[str, FileEntry]:
            return _refuse_twin(hub, path, _copy_all(source, folder, progress), facts)

        try:
            return write_snapshot(hub, path, facts, fill, signer=signer)
        except _AlreadyThereError as found:
            return found.snapshot


def check_request(source: ModelSource, request: ImportRequest) -> None:
    """Refuse a request that cannot become an entry, before anything is copied."""
    if not _NAME.fullmatch(request.name) or ".." in request.name or re.search(r"-v\d+$", request.name):
        raise ApplianceError(
            "invalid_request", f"{request.name!r} is no name for a model", hint="lower-case letters, digits, '.', '-', '_', without -vN at the end"
        )
    fits = {"llm": ("gguf", "hf", "safetensors"), "embed": ("onnx", "hf"), "rerank": ("onnx", "hf")}[request.kind]
    if source.form not in fits:
        hint = f"a model of kind {request.kind} comes as {' or '.join(fits)}; convert it on the station"
        raise ApplianceError("model_refused", f"{source.form} weights cannot be a model of kind {request.kind}", hint=hint)
    if request.kind == "embed":
        for name in ("model.onnx", "tokenizer.json") if source.form == "onnx" else ():
            if name not in source.files:
                raise refused(name, "is not in the folder; an embedding model has it", "export the model to ONNX with its tokenizer")
        for what, value in (("dimensions", request.dimensions or source.dimensions), ("max-context", request.max_context or source.max_context)):
            if not value:
                raise ApplianceError("invalid_request", f"the source does not say its {what}", hint=f"give --{what} N")


def required_signer(home: Path) -> ModelSigner:
    """The key of this home. Raises ``model_refused`` on a sealed site without one."""
    signer = home_signer(home)
    if signer is None:
        hint = "import it on the station and bring a bundle, or what `appliance models export` writes there"
        raise ApplianceError("model_refused", "this site has no key to sign models with", hint=hint)
    return signer


def next_version(hub: Path, kind: str, name: str) -> int:
    """One more than the highest that is or was there."""
    found = [re.fullmatch(rf"{re.escape(name)}-v([1-9][0-9]*)(?:\.replaced(?:-\d+)?)?", entry.name) for entry in (hub / kind).glob(f"{name}-v*")]
    return 1 + max((int(match[1]) for match in found if match), default=0)


def copy_hashed(source: BufferedReader, target: Path, progress: Progress) -> FileEntry:
    """Copy a stream into a new file and return what was written; blocks of zeros become holes, so that a sparse file stays small."""
    digest, size_bytes = hashlib.sha256(), 0
    block = bytearray(_BLOCK_BYTES)  # one for all: a fresh one per read costs more than the hash
    view = memoryview(block)
    with target.open("xb", buffering=0) as out:
        while count := source.readinto(block):
            digest.update(view[:count])
            size_bytes += count
            if count == _BLOCK_BYTES and block == _ZEROS:
                out.seek(count, os.SEEK_CUR)
            else:
                _write_all(out, view[:count])
            progress(count)
        out.truncate(size_bytes)
    return FileEntry(digest.hexdigest(), size_bytes)


def _write_all(out: FileIO, data: memoryview) -> None:
    while data:
        data = data[out.write(data) :]


def _copy_all(source: ModelSource, folder: Path, progress: Progress) -> Mapping[str, FileEntry]:
    entries = {}
    for name, path in sorted(source.files.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with acting_as_caller():
                stream = open_plain(path)
            with stream:
                entries[name] = copy_hashed(stream, target, progress)
        except ValueError as exc:
            raise refused(name, str(exc), "it was exchanged while it was copied; look who did that") from exc
        if entries[name].sha256 != source.digests.get(name, entries[name].sha256):
            raise refused(name, "has not the digest that the source names", "copy the source again: it is damaged")
        check_content(target, name)
    return entries


class _AlreadyThereError(Exception):
    """Stops a writer that has just copied what the hub has; carries that snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot.label)
        self.snapshot = snapshot


def _refuse_twin(hub: Path, path: str, files: Mapping[str, FileEntry], facts: Mapping[str, str]) -> Mapping[str, FileEntry]:
    stem, _, version = path.rpartition("-v")
    for number in range(int(version) - 1, 0, -1):
        try:
            older = open_snapshot(hub, f"{stem}-v{number}")
            if older.index.files == files and older.index.created_from == facts:
                verify(older)
                raise _AlreadyThereError(older)
        except ApplianceError:
            continue
    return files


def _facts(source: ModelSource, request: ImportRequest) -> dict[str, str]:
    on_torch = "vllm" if request.kind == "llm" else "sentence-transformers"
    engine = {"onnx": "onnx", "gguf": "llama.cpp", "hf": on_torch, "safetensors": on_torch}[source.form]
    told: dict[str, Any] = {
        **source.origin,
        "engine": engine,
        "format": source.form,
        "license": request.license or source.license,
        "languages": ",".join(request.languages),
        "max_context": request.max_context or source.max_context,
        "dimensions": (request.dimensions or source.dimensions) if request.kind == "embed" else 0,
        "model_version": request.version,
    }
    return {key: str(value) for key, value in told.items() if value}


def _refuse_full_disk(hub: Path, source: ModelSource) -> None:
    with acting_as_caller():
        states = [path.stat() for path in source.files.values()]
    needed = sum(min(state.st_size, state.st_blocks * 512) for state in states)
    free = os.statvfs(hub)
    if needed > free.f_bavail * free.f_frsize:
        raise ApplianceError("disk_full", f"the model needs {needed} bytes on the disk of {hub}", hint="free space, or run `appliance models gc`")
