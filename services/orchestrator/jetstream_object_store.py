"""Snapshots and checkpoints on JetStream: stream ``OBJECTS``. Owns its layout.

One message per object under ``object.<name>`` (base64url), with its SHA-256; a new one replaces it, atomically and with one sync. What is larger than a
part lies in ``object.<name>.<generation>.<number>`` and the message says so; it is published last, so an object is never seen half. Not the layout of
``nats object``: that takes a consumer to read one and two acknowledged messages to write one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.jetstream_connection import ApiError, JetStreamConnection
from services.orchestrator.jetstream_reads import StreamReader
from services.orchestrator.jetstream_values import publish_value

STREAM: Final = "OBJECTS"
_PREFIX: Final = "object."
_PART_BYTES: Final = 512 * 1024  # servers accept 1 MiB when nobody told them otherwise
_MOST_BYTES: Final = 512 * 1024**2
_LONGEST_NAME: Final = 150
_PARTS_AT_ONCE: Final = 4
_MAX_BYTES: Final = 8 * 1024**3


class _Head(msgspec.Struct, frozen=True, array_like=True):
    """In front of an object's bytes, or in place of them when it has parts."""

    digest: str
    size: int
    generation: str = ""
    parts: int = 0


class JetStreamObjectStore:
    """``services.orchestrator.ports.ObjectStore``. Make it with :meth:`open`."""

    def __init__(self, connection: JetStreamConnection) -> None:
        self._connection = connection
        self._reader = StreamReader(connection, STREAM, replicas=connection.address.replicas)

    @classmethod
    async def open(cls, connection: JetStreamConnection, *, max_bytes: int = _MAX_BYTES) -> JetStreamObjectStore:
        """The stream is made on first use. Raises ``log_unsafe``, ``unavailable``."""
        await connection.ensure_stream(
            {
                "name": STREAM, "subjects": [f"{_PREFIX}>"], "retention": "limits", "discard": "new", "storage": "file", "max_msgs_per_subject": 1,
                "num_replicas": connection.address.replicas, "max_bytes": max_bytes, "allow_direct": True, "compression": "none",
            }
        )  # fmt: skip
        return cls(connection)

    async def put(self, name: str, data: bytes) -> None:
        """See the port. Raises ``too_large``, ``disk_full``, ``unavailable``."""
        if len(data) > _MOST_BYTES:
            raise ApplianceError("too_large", f"{name} has {len(data)} bytes", hint=f"at most {_MOST_BYTES}")
        subject = _subject(name)
        digest = hashlib.sha256(data).hexdigest()
        if len(data) <= _PART_BYTES:
            await publish_value(self._connection, subject, _framed(_Head(digest, len(data)), data))
            return
        generation = secrets.token_hex(8)
        slots = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def publish_part(number: int, start: int) -> None:
            async with slots:
                await publish_value(self._connection, f"{subject}.{generation}.{number}", data[start : start + _PART_BYTES])

        starts = range(0, len(data), _PART_BYTES)
        async with asyncio.TaskGroup() as group:
            for number, start in enumerate(starts):
                group.create_task(publish_part(number, start))
        before = await self._head(subject)
        await publish_value(self._connection, subject, _framed(_Head(digest, len(data), generation, len(starts)), b""))
        if before is not None and before[0].parts:
            await self._purge(f"{subject}.{before[0].generation}.*")

    async def get(self, name: str) -> bytes | None:
        """See the port."""
        subject = _subject(name)
        if (found := await self._head(subject)) is None:
            return None
        head, data = found
        if head.parts:
            parts = await self._reader.entries(f"{subject}.{head.generation}.*", 0)
            numbered = {int(part.subject.rpartition(".")[2]): part.body for part in parts}
            data = b"".join(numbered.get(number, b"") for number in range(head.parts))
        if len(data) != head.size or hashlib.sha256(data).hexdigest() != head.digest:
            raise ApplianceError("snapshot_altered", f"{name} is not what was stored", hint="an older one is used where there is one; check the disk")
        return data

    async def delete(self, name: str) -> None:
        """See the port."""
        subject = _subject(name)
        await self._purge(subject)  # first: what has no head is not there
        await self._purge(f"{subject}.>")

    async def names(self, prefix: str) -> Sequence[str]:
        """See the port."""
        found: list[str] = []
        while True:
            answer = await self._connection.api(f"STREAM.INFO.{STREAM}", {"subjects_filter": f"{_PREFIX}*", "offset": len(found)})
            page = list(answer["state"].get("subjects") or {})
            found += page
            if not page or len(found) >= int(answer.get("total", 0)):
                break
        return sorted(name for name in map(_name, found) if name.startswith(prefix))

    async def _head(self, subject: str) -> tuple[_Head, bytes] | None:
        entries = await self._reader.entries(subject, 0)
        if not entries:
            return None
        line, _, data = entries[-1].body.partition(b"\n")
        try:
            return msgspec.json.decode(line, type=_Head), data
        except msgspec.MsgspecError as exc:
            raise ApplianceError(
                "snapshot_altered", f"{_name(subject)} is not what was stored", hint="an older one is used where there is one"
            ) from exc

    async def _purge(self, subject: str) -> None:
        try:
            await self._connection.api(f"STREAM.PURGE.{STREAM}", {"filter": subject})
        except ApiError as exc:
            raise ApplianceError("unavailable", f"the object store does not purge: {exc}") from exc


def _framed(head: _Head, data: bytes) -> bytes:
    return msgspec.json.encode(head) + b"\n" + data


def _subject(name: str) -> str:
    if not name or len(name.encode()) > _LONGEST_NAME:
        raise ApplianceError("invalid_request", f"{name[:60]!r} cannot be the name of an object", hint=f"1 to {_LONGEST_NAME} bytes")
    return _PREFIX + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name(subject: str) -> str:
    token = subject.removeprefix(_PREFIX)
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
