"""Principals by the SHA-256 of their bearer: bounded, and empty the moment anything about identity changes.

A principal read from the database before a change must not enter the cache after it. So who resolves one remembers ``epoch`` from
before reading and hands it to :meth:`PrincipalCache.put`, which refuses when anything was forgotten in between.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from appliance.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class CachedPrincipal:
    """A principal and the time (seconds since the epoch) at which its credential ends."""

    principal: Principal
    expires_at: float


class PrincipalCache:
    """Least recently used entries leave first.

    Args:
        entries: most principals kept.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._by_digest: OrderedDict[bytes, CachedPrincipal] = OrderedDict()
        self._generation: int | None = None
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._by_digest)

    def get(self, digest: bytes, now: float) -> Principal | None:
        """The principal of a bearer, unless unknown or expired."""
        entry = self._by_digest.get(digest)
        if entry is None:
            return None
        if now >= entry.expires_at:
            del self._by_digest[digest]
            return None
        self._by_digest.move_to_end(digest)
        return entry.principal

    def put(self, digest: bytes, entry: CachedPrincipal, epoch: int) -> None:
        """Keep ``entry``, unless anything was forgotten since ``epoch``."""
        if epoch != self.epoch:
            return
        self._by_digest[digest] = entry
        self._by_digest.move_to_end(digest)
        if len(self._by_digest) > self._entries:
            self._by_digest.popitem(last=False)

    def forget(self) -> None:
        """Drop everything: something changed."""
        self.epoch += 1
        self._by_digest.clear()

    def observe(self, generation: int) -> None:
        """Take note of the generation in the database; drop everything when it moved."""
        if generation != self._generation:
            self._generation = generation
            self.forget()
