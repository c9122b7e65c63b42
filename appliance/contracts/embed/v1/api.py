"""Embedding, version 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Text → unit vectors."""

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        ...

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes that the model was trained for."""
        ...

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:
        """Float32 array of shape (len(texts), dimensions), rows L2-normalised; over-long texts are cut at max_context.

        ``background`` marks bulk work (ingest) that must give way to queries.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` by the model's tokenizer, for usage accounting."""
        ...
