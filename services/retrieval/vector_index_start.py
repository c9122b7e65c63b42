"""Opens the vector index without trusting what a crash left, nor vectors of another model.

After an unclean stop a throw-away child reads the folder first.

The mark ``<folder>.clean`` lies beside the index while nobody has it open and the last to have it open closed it. With the mark, or without
an index, nothing is probed, so that normal starts stay fast. An index that cannot be read is deleted: the catalogue makes it again.
``<folder>.model`` says whose vectors they are; it is written before the first of them. An index of another model is deleted; one without that file
comes from a release that had one model, and is taken over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from appliance.audit.durable_files import replace_file
from appliance.kit.logging import get_logger
from services.retrieval.qdrant_vector_index import QdrantVectorIndex, shard_folder

log = get_logger(__name__)
_PROBE_SECONDS: Final = 30.0
_ROOT: Final = Path(__file__).resolve().parents[2]


def open_vector_index(indexes: Path, dimensions: int, model: str = "") -> QdrantVectorIndex:
    """The index in ``indexes``, empty when there is none, what is there cannot be read, or belongs to another model than ``model`` (empty = any)."""
    folder = shard_folder(indexes, dimensions)
    if model and folder.exists() and _model_of(folder) not in {model, ""}:
        log.warning("vector_index_of_another_model", folder=str(folder))
        _delete(folder)
    mark = _mark(folder)
    if folder.exists() and not mark.exists() and not is_readable(folder, dimensions):
        log.warning("vector_index_torn", folder=str(folder))
        shutil.rmtree(folder)
    indexes.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    if model:
        _name_model(folder, model)
    _sync(indexes)
    return QdrantVectorIndex(indexes, dimensions)


def renew_vector_index(old: QdrantVectorIndex | None, indexes: Path, dimensions: int, model: str) -> QdrantVectorIndex:
    """An empty index for vectors of ``model``; ``old``, which nobody uses any more, is closed and deleted.

    A stop anywhere in here leaves an index that the next start finds to be empty, unreadable or of another model; each is filled anew.
    """
    if old is not None:
        old.close()
        _delete(old.folder)
    _delete(shard_folder(indexes, dimensions))
    return open_vector_index(indexes, dimensions, model)


def close_vector_index(index: QdrantVectorIndex) -> None:
    """Close, then say that it was closed."""
    index.close()
    mark = _mark(index.folder)
    mark.touch()
    _sync(mark.parent)


def is_readable(folder: Path, dimensions: int) -> bool:
    """Whether a child process could read everything in ``folder``."""
    command = [sys.executable, "-m", "services.retrieval.probe_vector_index", str(folder), str(dimensions)]
    try:
        done = subprocess.run(command, cwd=_ROOT, timeout=_PROBE_SECONDS, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode != 0:
        log.warning("vector_index_probe_failed", status=done.returncode, said=done.stderr[-500:].decode(errors="replace"))
    return done.returncode == 0


def _delete(folder: Path) -> None:
    _mark(folder).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _model_of(folder: Path) -> str:
    try:
        return folder.with_name(f"{folder.name}.model").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _name_model(folder: Path, model: str) -> None:
    if _model_of(folder) != model:
        replace_file(folder.with_name(f"{folder.name}.model"), f"{model}\n".encode())


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.clean")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
