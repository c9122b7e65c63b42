"""Values of a thread that are too large for an entry: objects. Owns what is large, and the objects' names.

A name is never used twice, so deleting an object never hits a value that was stored meanwhile.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.langgraph.thread_events import Blob, Event, Packed, ThreadEvent, blobs_of, pack, with_blobs
from services.orchestrator.ports import ObjectStore

INLINE_BYTES: Final = 64 * 1024
"""A value larger than this becomes an object."""
EVENT_BYTES: Final = 512 * 1024
"""An event larger than this becomes an object; servers may take 1 MiB and no more."""


class ThreadValues:
    """The objects of one space's threads."""

    def __init__(self, objects: ObjectStore, space: str) -> None:
        self._objects = objects
        self._space = space

    async def prepared(self, thread: str, event: ThreadEvent) -> tuple[Event, int]:
        """The event as it may stand in an entry, and its size in bytes there."""
        if any(len(blob.data) > INLINE_BYTES for blob in blobs_of(event)):
            event = with_blobs(event, [await self._stored(thread, blob) if len(blob.data) > INLINE_BYTES else blob for blob in blobs_of(event)])
        data = pack((event,))
        if len(data) <= EVENT_BYTES:
            return event, len(data)
        return Packed(await self._stored(thread, Blob("", data)), replaces=False), len(thread)

    async def contents(self, thread: str, data: bytes) -> Blob:
        """Packed events, for an entry."""
        return Blob("", data) if len(data) <= EVENT_BYTES else await self._stored(thread, Blob("", data))

    async def copied(self, source: str, target: str, event: ThreadEvent) -> ThreadEvent:
        """An event of one thread for another; objects are copied."""
        blobs = [await self._stored(target, Blob(blob.kind, await self.data(source, blob))) if blob.key else blob for blob in blobs_of(event)]
        return with_blobs(event, blobs)

    async def data(self, thread: str, blob: Blob) -> bytes:
        """The bytes of a value. Raises ApplianceError ``not_found`` when it was deleted, ``snapshot_altered``, ``unavailable``."""
        if not blob.key:
            return blob.data
        if (data := await self._objects.get(self._name(thread, blob.key))) is None:
            raise ApplianceError("not_found", f"a value of the thread {thread} was pruned", hint="read the thread again")
        return data

    async def delete(self, thread: str, keys: Collection[str]) -> None:
        """Objects that nothing refers to any more."""
        for key in keys:
            await self._objects.delete(self._name(thread, key))

    async def _stored(self, thread: str, blob: Blob) -> Blob:
        key = secrets.token_hex(12)
        await self._objects.put(self._name(thread, key), blob.data)
        return Blob(blob.kind, b"", key)

    def _name(self, thread: str, key: str) -> str:
        return f"graph/{hashlib.sha256(msgspec.msgpack.encode((self._space, thread))).hexdigest()[:32]}/{key}"
