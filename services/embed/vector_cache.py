"""The vectors of recent queries, by exact text. Least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_TEXT_CHARACTERS: Final = 1024


class VectorCache:
    """At most ``entries`` vectors of texts up to :data:`MAX_TEXT_CHARACTERS`; thread-safe."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._vectors: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> npt.NDArray[np.float32] | None:
        """The vector, or None."""
        with self._lock:
            vector = self._vectors.get(text)
            if vector is not None:
                self._vectors.move_to_end(text)
            return vector

    def put(self, text: str, vector: npt.NDArray[np.float32]) -> None:
        """Keep a copy."""
        if not self._entries or len(text) > MAX_TEXT_CHARACTERS:
            return
        with self._lock:
            self._vectors[text] = vector.copy()
            self._vectors.move_to_end(text)
            while len(self._vectors) > self._entries:
                self._vectors.popitem(last=False)
