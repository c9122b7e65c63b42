"""The port of the caches, and the cache in memory.

Owns: bounds (entries, bytes, one value), expiry, tags, and the order of losing (least recently used first). Does not own: what a key means. A key must
hold everything that the value depends on, the caller's rights above all: a store knows no callers.

A value that was worked out *before* something changed must not be stored *after* it: take a :meth:`CacheStore.stamp` of the tags before the work and
give it to :meth:`CacheStore.put`; what was dropped meanwhile is then not stored (or is born dead).

A cache is never needed: it answers None when in doubt, and no call raises because a server is gone.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Counter

MAX_KEY_BYTES: Final = 256
MAX_TAGS: Final = 64
MAX_TAG_BYTES: Final = 256
_ENTRY_OVERHEAD_BYTES: Final = 400  # OrderedDict slot, entry, small objects (sys.getsizeof on CPython 3.11)
_REMEMBERED_DROPS: Final = 10_000
requests: Final = Counter("cache_requests_total", "Look-ups in caches by outcome (hit, miss, unreachable)", ["cache", "outcome"])


class CacheStore(Protocol):
    """Bytes by key, for a while."""

    async def get(self, key: bytes) -> bytes | None:
        """The value, None when there is none (any more) or the store cannot be reached."""
        ...

    async def put(self, key: bytes, value: bytes, *, ttl_seconds: float, tags: Sequence[str] = (), since: bytes | None = None) -> None:
        """Keep ``value`` for ``ttl_seconds`` at most; one that is too large, or whose ``tags`` were dropped after ``since``, is not kept.

        Args:
            key: up to :data:`MAX_KEY_BYTES` bytes.
            value: bytes, at most what the store is built for.
            ttl_seconds: 0 or less = not kept.
            tags: names by which it can be dropped; at most :data:`MAX_TAGS`.
            since: a stamp of (at least) the same tags, taken before the value was worked out; None = now.

        Raises:
            ValueError: key or tags past the bounds.
        """
        ...

    async def stamp(self, tags: Sequence[str]) -> bytes:
        """A point in the history of ``tags``, for ``since``; opaque."""
        ...

    async def drop(self, tag: str) -> None:
        """Forget everything that has ``tag``; no later ``get`` returns it. While a shared store cannot be reached, its caller gets nothing from it."""
        ...

    async def close(self) -> None:
        """Release connections; no call afterwards."""
        ...


@dataclass(slots=True)
class _Entry:
    value: bytes
    expires_at: float
    tags: tuple[str, ...]


class MemoryCacheStore:
    """Implements ``CacheStore`` in this process, for one event loop. The ``_now`` methods are the same without a coroutine: a hit costs microseconds.

    Args:
        entries: most of them at once.
        size_bytes: most bytes of keys, values and bookkeeping at once.
        max_value_bytes: larger values are not kept.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        entries: int = 10_000,
        size_bytes: int = 64 * 1024 * 1024,
        max_value_bytes: int = 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = entries
        self._max_bytes = size_bytes
        self._max_value_bytes = min(max_value_bytes, size_bytes)
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._by_tag: dict[str, set[bytes]] = {}
        self._bytes = 0
        self._drops = 0  # how many there were; a stamp is this number
        self._dropped: OrderedDict[str, int] = OrderedDict()  # tag → number of its last drop
        self._forgotten_drops = 0  # number of the last drop that is not in ``_dropped`` any more
        self._hits = requests.labels("memory", "hit")
        self._misses = requests.labels("memory", "miss")

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the entries weigh."""
        return self._bytes

    def get_now(self, key: bytes) -> bytes | None:
        """See ``get``."""
        entry = self._entries.get(key)
        if entry is None:
            self._misses.inc()
            return None
        if entry.expires_at <= self._clock():
            self._remove(key)
            self._misses.inc()
            return None
        self._entries.move_to_end(key)
        self._hits.inc()
        return entry.value

    def put_now(self, key: bytes, value: bytes, *, ttl_seconds: float, tags: Sequence[str] = (), since: bytes | None = None) -> None:
        """See ``put``."""
        check_entry(key, tags)
        if key in self._entries:
            self._remove(key)
        weight = _weight(key, value, tags)
        if (
            not ttl_seconds > 0
            or len(value) > self._max_value_bytes
            or weight > self._max_bytes
            or self._max_entries < 1
            or self._is_late(tags, since)
        ):
            return
        self._entries[key] = _Entry(value, self._clock() + min(ttl_seconds, math.inf), tuple(tags))
        self._bytes += weight
        for tag in tags:
            self._by_tag.setdefault(tag, set()).add(key)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def stamp_now(self) -> bytes:
        """See ``stamp``."""
        return self._drops.to_bytes(8, "big")

    def drop_now(self, tag: str) -> None:
        """See ``drop``."""
        self._drops += 1
        self._dropped[tag] = self._drops
        self._dropped.move_to_end(tag)
        if len(self._dropped) > _REMEMBERED_DROPS:
            self._forgotten_drops = self._dropped.popitem(last=False)[1]
        for key in list(self._by_tag.get(tag, ())):
            self._remove(key)

    async def get(self, key: bytes) -> bytes | None:
        """See ``CacheStore``."""
        return self.get_now(key)

    async def put(self, key: bytes, value: bytes, *, ttl_seconds: float, tags: Sequence[str] = (), since: bytes | None = None) -> None:
        """See ``CacheStore``."""
        self.put_now(key, value, ttl_seconds=ttl_seconds, tags=tags, since=since)

    async def stamp(self, tags: Sequence[str]) -> bytes:  # noqa: ARG002 - one number serves all tags here
        """See ``CacheStore``."""
        return self.stamp_now()

    async def drop(self, tag: str) -> None:
        """See ``CacheStore``."""
        self.drop_now(tag)

    async def close(self) -> None:
        """See ``CacheStore``."""
        self._entries.clear()
        self._by_tag.clear()
        self._bytes = 0

    def _is_late(self, tags: Sequence[str], since: bytes | None) -> bool:
        if since is None or not tags:
            return False
        stamped = int.from_bytes(since, "big")
        return stamped < self._forgotten_drops or any(self._dropped.get(tag, 0) > stamped for tag in tags)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self._bytes -= _weight(key, entry.value, entry.tags)
        for tag in entry.tags:
            keys = self._by_tag.get(tag)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_tag[tag]


def check_entry(key: bytes, tags: Sequence[str]) -> None:
    """Raise ValueError for a key or tags past the bounds."""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"a key has 1 to {MAX_KEY_BYTES} bytes")
    if len(tags) > MAX_TAGS:
        raise ValueError(f"an entry has at most {MAX_TAGS} tags")
    for tag in tags:
        check_tag(tag)


def check_tag(tag: str) -> None:
    """Raise ValueError for a tag past the bounds."""
    if not 0 < len(tag.encode("utf-8", "surrogatepass")) <= MAX_TAG_BYTES:
        raise ValueError(f"a tag has 1 to {MAX_TAG_BYTES} bytes")


def _weight(key: bytes, value: bytes, tags: Sequence[str]) -> int:
    return len(key) + len(value) + sum(len(tag) + 100 for tag in tags) + _ENTRY_OVERHEAD_BYTES
