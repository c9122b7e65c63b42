"""An encoder without a model, for tests of other services: texts that share words are near each other. Passes ``check_encoder``."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from appliance.contracts.embed.v1.api import Vectors

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """Bag of hashed words (feature hashing, Weinberger et al. 2009): one coordinate and sign per word, then unit length. Deterministic everywhere.

    Args:
        dimensions: length of the vectors.
        languages: what it claims to know.
    """

    def __init__(self, dimensions: int = 384, languages: Sequence[str] = ("en",)) -> None:
        self._dimensions = dimensions
        self._languages = frozenset(languages)
        self.embedded_texts = 0

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        return self._dimensions

    @property
    def languages(self) -> frozenset[str]:
        """What was passed in."""
        return self._languages

    async def embed(self, texts: Sequence[str], *, background: bool = False) -> Vectors:  # noqa: ARG002 - the contract's signature
        """Unit vectors; ``background`` makes no difference. Counts the texts in ``embedded_texts``."""
        self.embedded_texts += len(texts)
        vectors = np.zeros((len(texts), self._dimensions), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._vector(text)
        return vectors

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(_WORD.findall(text))

    def _vector(self, text: str) -> Vectors:
        vector = np.zeros(self._dimensions, np.float32)
        for word in _WORD.findall(text.casefold()):
            code = zlib.crc32(word.encode("utf-8", "replace"))
            vector[code % self._dimensions] += 1.0 if code & 0x8000_0000 else -1.0
        length = float(np.linalg.norm(vector))
        if not length:  # no words, or words that cancel out
            vector[0] = length = 1.0
        return vector / np.float32(length)
