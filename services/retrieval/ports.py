"""What retrieval needs from the outside: two indexes and a place for bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.retrieval.domain import AccessFilter, Hit, IndexEntry


class TextIndex(Protocol):
    """BM25 over analysed terms. Synchronous; callers run it in a thread."""

    def add(self, entries: Sequence[IndexEntry]) -> None:
        """Insert or replace ``entries``; searchable and durable when it returns."""
        ...

    def remove(self, chunk_ids: Sequence[int]) -> None:
        """Remove; unknown ids are ignored; durable when it returns."""
        ...

    def search(self, terms: Sequence[str], access: AccessFilter, limit: int) -> list[Hit]:
        """Best ``limit`` chunks for ``terms`` inside ``access``."""
        ...

    def document_frequency(self, term: str) -> int:
        """Chunks that hold ``term``, over the whole index (used for weights only, never shown)."""
        ...

    @property
    def documents(self) -> int:
        """Chunks in the index, in the words of term statistics."""
        ...


class VectorIndex(Protocol):
    """Cosine nearest neighbours. Synchronous; callers run it in a thread."""

    def add(self, entries: Sequence[IndexEntry], vectors: npt.NDArray[np.float32]) -> None:
        """Insert or replace; row i of ``vectors`` belongs to ``entries[i]``; durable when it returns."""
        ...

    def remove(self, chunk_ids: Sequence[int]) -> None:
        """Remove; unknown ids are ignored; durable when it returns."""
        ...

    def search(self, vector: npt.NDArray[np.float32], access: AccessFilter, limit: int) -> list[Hit]:
        """Nearest ``limit`` chunks inside ``access``."""
        ...

    def count(self) -> int:
        """Chunks in the index."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class BlobStore(Protocol):
    """Content-addressed bytes."""

    async def put(self, source: Path, sha256: str) -> None:
        """Store a copy of ``source`` under its digest; durable when it returns; a no-op when it is there.

        Raises:
            ApplianceError: ``disk_full``; ``invalid_request`` when the bytes do not have that digest.
        """
        ...

    def path(self, sha256: str) -> Path:
        """Where the bytes lie (a local file that parsers may open)."""
        ...

    async def digests(self) -> list[str]:
        """Everything that is stored."""
        ...

    async def remove(self, sha256: str) -> None:
        """Forget the bytes; a no-op when they are not there."""
        ...
