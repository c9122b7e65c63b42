"""Ids: sortable by time, unguessable, short. Owns their making; derived ids make commands idempotent."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Final

TASK: Final = "t_"
APPROVAL: Final = "a_"
CHECKPOINT: Final = "c_"
_RANDOM_BYTES: Final = 8


class _Pool:
    """Random bytes in blocks: one system call for 512 ids."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def take(self) -> str:
        if self._at >= len(self._block):
            self._block, self._at = os.urandom(_RANDOM_BYTES * 512), 0
        piece = self._block[self._at : self._at + _RANDOM_BYTES]
        self._at += _RANDOM_BYTES
        return piece.hex()


_pool: Final = _Pool()


def new_id(prefix: str) -> str:
    """``prefix`` + 11 hex digits of milliseconds + 16 random ones."""
    return f"{prefix}{int(time.time() * 1000):011x}{_pool.take()}"


def derived_id(prefix: str, *parts: str) -> str:
    """The same parts give the same id: 27 hex digits of a keyless BLAKE2b over length-prefixed parts."""
    digest = hashlib.blake2b(digest_size=14)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return prefix + digest.hexdigest()[:27]
