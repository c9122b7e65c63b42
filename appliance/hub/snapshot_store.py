"""The port of a store of snapshots outside the hub: a folder that is carried, or a bucket. Owns the contract; ``appliance.testing`` checks adapters.

Contract:
1. An object appears whole or not at all, and never changes: a second ``put`` of the same bytes is a no-op, of others a ``conflict``.
2. ``put`` takes exactly the promised bytes: a stream of another length or digest leaves nothing (``invalid_request``).
3. Memory does not depend on the size of an object. A store that does not answer is ``store_unreachable`` within a bounded time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.kit.errors import ApplianceError

MAX_KEY_LENGTH: Final = 512
_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class Readable(Protocol):
    """What can be read piece by piece."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; empty at the end."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a listing."""

    key: str
    size_bytes: int


class SnapshotStore(Protocol):
    """Immutable objects by key."""

    def put(self, key: str, stream: Readable, size_bytes: int, sha256: str) -> None:
        """Store what ``stream`` has.

        Raises:
            ApplianceError: ``conflict``, ``invalid_request``, ``store_unreachable``, ``forbidden``, ``disk_full``.
        """

    def open(self, key: str, offset: int = 0) -> AbstractContextManager[Readable]:
        """Read an object from ``offset`` on. Raises ``not_found``, ``store_unreachable``, ``forbidden``."""

    def size(self, key: str) -> int | None:
        """Length in bytes, or None when there is no such object. Raises ``store_unreachable``, ``forbidden``."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects whose key begins with ``prefix``, sorted by key. Raises ``store_unreachable``, ``forbidden``."""

    def delete(self, key: str) -> None:
        """Take an object away; a no-op when it is gone. Raises ``store_unreachable``, ``forbidden``."""


class MeasuredStream:
    """Hands out a stream and refuses its end unless length and digest are as promised, so that nothing wrong is ever completed."""

    def __init__(self, stream: Readable, size_bytes: int, sha256: str) -> None:
        self._stream = stream
        self._left = size_bytes
        self._expected = sha256
        self._digest = hashlib.sha256()
        self._checked = False

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; the last ones only when all are right."""
        data = self._stream.read(self._left + 1 if size < 0 or size > self._left else size)
        self._digest.update(data)
        self._left -= len(data)
        if self._left < 0 or (not data and self._left > 0 and size != 0):
            raise _not_as_promised("another length")
        if self._left == 0 and not self._checked:
            self._finish()
        return data

    def _finish(self) -> None:
        self._checked = True
        if self._stream.read(1):
            raise _not_as_promised("another length")
        if self._digest.hexdigest() != self._expected:
            raise _not_as_promised("another content")


def check_key(key: str) -> str:
    """``key``, when it is a relative path of plain parts. A mistake in the code otherwise."""
    if len(key) > MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
    return key


def missing_object(key: str) -> ApplianceError:
    """The answer for an object that is not there."""
    return ApplianceError("not_found", f"the store has no {key}", hint="export the model again: the store is incomplete")


def conflicting_object(key: str) -> ApplianceError:
    """The answer for an attempt to change an object."""
    return ApplianceError("conflict", f"the store has another {key} already, and objects never change", hint="use another prefix or folder")


def _not_as_promised(what: str) -> ApplianceError:
    return ApplianceError(
        "invalid_request", f"the stream has {what} than promised; nothing was stored", hint="the source changed while it was read: run it again"
    )
