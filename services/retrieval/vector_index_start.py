"""Opens the vector index without trusting what a crash left: after an unclean stop a throw-away child reads the folder first.

The mark ``<folder>.clean`` lies beside the index while nobody has it open and the last to have it open closed it. With the mark, or without
an index, nothing is probed, so that normal starts stay fast. An index that cannot be read is deleted: the catalogue makes it again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from appliance.kit.logging import get_logger
from services.retrieval.qdrant_vector_index import QdrantVectorIndex, shard_folder

log = get_logger(__name__)
_PROBE_SECONDS: Final = 30.0
_ROOT: Final = Path(__file__).resolve().parents[2]


def open_vector_index(indexes: Path, dimensions: int) -> QdrantVectorIndex:
    """The index in ``indexes``, empty when there is none or what is there cannot be read."""
    folder = shard_folder(indexes, dimensions)
    mark = _mark(folder)
    if folder.exists() and not mark.exists() and not is_readable(folder, dimensions):
        log.warning("vector_index_torn", folder=str(folder))
        shutil.rmtree(folder)
    indexes.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    _sync(indexes)
    return QdrantVectorIndex(indexes, dimensions)


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


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.clean")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
