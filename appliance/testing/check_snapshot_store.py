"""Conformance of a snapshot store: the contract of ``appliance.hub.snapshot_store`` as one function, run against every adapter."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Final

from appliance.hub.snapshot_store import SnapshotStore
from appliance.kit.errors import ApplianceError

_LARGE_BYTES: Final = 20 * 1024 * 1024  # more than one part of an upload


def check_snapshot_store(make: Callable[[], SnapshotStore]) -> None:
    """Run every check against a store that ``make`` opens; several opened on the same place see the same objects.

    Raises:
        AssertionError: saying which promise is broken.
    """
    store, other = make(), make()
    _an_object_is_read_back(store, other)
    _objects_never_change(store)
    _a_wrong_stream_leaves_nothing(store)
    _listing_is_by_prefix_and_sorted(store)
    _deleting_is_final_and_safe_to_repeat(store, other)
    _keys_stay_inside(store)


def _an_object_is_read_back(store: SnapshotStore, other: SnapshotStore) -> None:
    large = b"0123456789abcdef" * (_LARGE_BYTES // 16) + b"tail"
    for key, content in (("blobs/empty", b""), ("blobs/small", b"hello"), ("blobs/large", large)):
        assert store.size(key) is None, f"{key} is there before it was put"
        put(store, key, content)
        assert other.size(key) == len(content), f"{key} has another length"
        assert read(other, key) == content, f"{key} is read back changed"
    assert read(store, "blobs/large", len(large) - 4) == b"tail", "reading does not begin at the offset"
    assert read(store, "blobs/small", 5) == b"", "there is something behind the end"
    assert code_of(lambda: read(store, "blobs/absent")) == "not_found", "an absent object can be read"


def _objects_never_change(store: SnapshotStore) -> None:
    put(store, "blobs/small", b"hello")
    assert code_of(lambda: put(store, "blobs/small", b"HELLO")) == "conflict", "an object was replaced by one of the same length"
    assert code_of(lambda: put(store, "blobs/small", b"other")) == "conflict", "an object was replaced"
    assert code_of(lambda: put(store, "blobs/small", b"longer than before")) == "conflict", "an object was replaced by a longer one"
    assert read(store, "blobs/small") == b"hello", "a refused put changed the object"


def _a_wrong_stream_leaves_nothing(store: SnapshotStore) -> None:
    right = hashlib.sha256(b"right").hexdigest()
    for content, size_bytes in ((b"wrong", 5), (b"righ", 5), (b"right!", 5), (b"", 5)):
        refusal = code_of(lambda content=content, size=size_bytes: store.put("blobs/wrong", io.BytesIO(content), size, right))  # type: ignore[misc]
        assert refusal == "invalid_request", f"{content!r} passed for {size_bytes} bytes of another digest: {refusal}"
        assert store.size("blobs/wrong") is None, "a stream that was refused left an object"


def _listing_is_by_prefix_and_sorted(store: SnapshotStore) -> None:
    for name in ("b", "a/2", "a/1"):
        put(store, f"lists/{name}", name.encode())
    found = [(entry.key, entry.size_bytes) for entry in store.list("lists/")]
    assert found == [("lists/a/1", 3), ("lists/a/2", 3), ("lists/b", 1)], f"another list: {found}"
    assert [entry.key for entry in store.list("lists/a/")] == ["lists/a/1", "lists/a/2"], "the prefix does not bind"
    assert list(store.list("nothing/")) == [], "something is below a prefix that nobody used"


def _deleting_is_final_and_safe_to_repeat(store: SnapshotStore, other: SnapshotStore) -> None:
    for _ in range(2):
        store.delete("lists/a/1")
    assert other.size("lists/a/1") is None, "a deleted object has a size"
    assert [entry.key for entry in other.list("lists/a/")] == ["lists/a/2"], "a deleted object is listed"
    put(store, "lists/a/1", b"again")
    assert read(other, "lists/a/1") == b"again", "a deleted key cannot be used again"


def _keys_stay_inside(store: SnapshotStore) -> None:
    for key in ("../outside", "/etc/passwd", "a//b", "a/../b", "", ".hidden", "a\\b", "a\nb"):
        try:
            store.size(key)
        except ValueError:
            continue
        raise AssertionError(f"the key {key!r} is not refused")


def put(store: SnapshotStore, key: str, content: bytes) -> None:
    """Store bytes under their digest."""
    store.put(key, io.BytesIO(content), len(content), hashlib.sha256(content).hexdigest())


def read(store: SnapshotStore, key: str, offset: int = 0) -> bytes:
    """All of an object from ``offset`` on, read in pieces."""
    parts = []
    with store.open(key, offset) as stream:
        while chunk := stream.read(1024 * 1024):
            parts.append(chunk)
    return b"".join(parts)


def code_of(act: Callable[[], object]) -> str:
    """The code with which ``act`` fails; empty when it does not."""
    try:
        act()
    except ApplianceError as error:
        return error.code
    return ""
