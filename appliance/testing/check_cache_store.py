"""Conformance of the ``CacheStore`` port, run against the cache in memory and Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from appliance.kit.cache import MAX_KEY_BYTES, MAX_TAGS, CacheStore

_PATIENCE_SECONDS: Final = 60.0


async def check_cache_store(store: CacheStore, other: CacheStore, *, max_value_bytes: int, pass_seconds: Callable[[float], object]) -> None:
    """Run every check on two handles of one store (the same object, where it lives in the process).

    Args:
        store: keeps values of at most ``max_value_bytes``.
        other: sees what ``store`` keeps.
        max_value_bytes: see above.
        pass_seconds: makes so much time pass for the store.

    Raises:
        AssertionError: saying which promise is broken.
    """
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await _values_are_read_back(store, other, max_value_bytes)
        await _time_ends_them(store, pass_seconds)
        await _a_dropped_tag_takes_its_values(store, other)
        await _what_was_worked_out_before_a_drop_is_not_kept(store, other)
        await _bounds_are_refused(store)


async def _values_are_read_back(store: CacheStore, other: CacheStore, max_value_bytes: int) -> None:
    key = _key()
    assert await store.get(key) is None, "an absent value is there"
    for value in (b"", b"\x00\r\n\xff", "да".encode(), secrets.token_bytes(max_value_bytes)):
        await store.put(key, value, ttl_seconds=600)
        assert await other.get(key) == value, f"{len(value)} bytes are read back changed"
    await store.put(key, bytes(max_value_bytes + 1), ttl_seconds=600)
    assert await other.get(key) is None, "a value past the bound, or the one that it replaced, is there"
    long_key = secrets.token_bytes(MAX_KEY_BYTES)
    await store.put(long_key, b"x", ttl_seconds=600)
    assert await other.get(long_key) == b"x", "the longest key is not found"
    assert await other.get(long_key[:-1]) is None, "a key is cut off"


async def _time_ends_them(store: CacheStore, pass_seconds: Callable[[float], object]) -> None:
    brief, lasting, never = _key(), _key(), _key()
    await store.put(brief, b"brief", ttl_seconds=0.05)
    await store.put(lasting, b"lasting", ttl_seconds=600)
    await store.put(never, b"never", ttl_seconds=0)
    assert await store.get(never) is None, "a value without time is kept"
    pass_seconds(0.06)
    assert await store.get(brief) is None, "a value outlives its time"
    assert await store.get(lasting) == b"lasting", "a value went before its time"


async def _a_dropped_tag_takes_its_values(store: CacheStore, other: CacheStore) -> None:
    red, blue = f"red:{secrets.token_hex(4)}", f"синий:{secrets.token_hex(4)}"
    one, both, neither = _key(), _key(), _key()
    await store.put(one, b"1", ttl_seconds=600, tags=[red])
    await store.put(both, b"2", ttl_seconds=600, tags=[red, blue])
    await store.put(neither, b"3", ttl_seconds=600)
    await other.drop(blue)
    found = [await store.get(key) for key in (one, both, neither)]
    assert found == [b"1", None, b"3"], f"dropping one tag leaves {found}"
    await store.put(both, b"4", ttl_seconds=600, tags=[red, blue])
    assert await other.get(both) == b"4", "a value put after the drop is not there"
    await store.drop(red)
    found = [await other.get(key) for key in (one, both, neither)]
    assert found == [None, None, b"3"], f"dropping the other tag leaves {found}"
    await store.drop(f"unknown:{secrets.token_hex(4)}")


async def _what_was_worked_out_before_a_drop_is_not_kept(store: CacheStore, other: CacheStore) -> None:
    tag, foreign = f"t:{secrets.token_hex(4)}", f"t:{secrets.token_hex(4)}"
    key = _key()
    since = await store.stamp([tag])
    await other.drop(tag)
    await store.put(key, b"late", ttl_seconds=600, tags=[tag], since=since)
    assert await other.get(key) is None, "a value from before the drop is kept after it"
    since = await store.stamp([tag])
    await other.drop(foreign)
    await store.put(key, b"in time", ttl_seconds=600, tags=[tag], since=since)
    assert await other.get(key) == b"in time", "a drop of another tag takes it"
    await other.drop(tag)
    assert await store.get(key) is None, "a value with a stamp is not dropped"


async def _bounds_are_refused(store: CacheStore) -> None:
    for key, tags in (
        (b"", []),
        (bytes(MAX_KEY_BYTES + 1), []),
        (_key(), [""]),
        (_key(), ["t" * 1000]),
        (_key(), [f"t{i}" for i in range(MAX_TAGS + 1)]),
    ):
        try:
            await store.put(key, b"x", ttl_seconds=1, tags=tags)
        except ValueError:
            continue
        raise AssertionError(f"accepted: key of {len(key)} bytes, {len(tags)} tags")


def _key() -> bytes:
    return secrets.token_bytes(16)
