"""The event log on JetStream: stream ``TASKS``, or another with the same promises. Owns its settings and the checks of what is appended.

Committing, reading and feeding lie beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import msgspec

from appliance.kit.errors import ApplianceError
from services.orchestrator.jetstream_commits import Commits
from services.orchestrator.jetstream_connection import ApiError, JetStreamConnection
from services.orchestrator.jetstream_feed import FeedInterruptedError, open_feed
from services.orchestrator.jetstream_frames import HEADER_BYTES, LARGEST_BATCH
from services.orchestrator.jetstream_reads import StreamReader
from services.orchestrator.ports import Entry, Extent, Recorded
from services.orchestrator.subjects import EXECUTORS, SPACES, TASKS

STREAM: Final = "TASKS"
_DUPLICATE_WINDOW_NANOSECONDS: Final = 120_000_000_000
_UNIT_BYTES: Final = 64 * 1024 * 1024
_LONGEST_ID: Final = 128
_GAPS_LOOKED_AT: Final = 64  # per feed: a log that was purged has many
_BEHIND_SECONDS: Final = 8.0
_AGAIN_SECONDS: Final = 0.1


class JetStreamEventLog:
    """``services.orchestrator.ports.EventLog``. Make it with :func:`open_event_log`."""

    def __init__(self, connection: JetStreamConnection, stream: str = STREAM) -> None:
        self._connection = connection
        self._stream = stream
        self._reader = StreamReader(connection, stream, replicas=connection.address.replicas)
        self._commits = Commits(connection, self._reader)
        self._id_prefix = secrets.token_hex(6)
        self._ids = count(1)
        self._max_body = int(connection.wire.info.get("max_payload", 1024 * 1024)) - HEADER_BYTES

    async def append(self, entries: Sequence[Entry]) -> Sequence[int]:
        """See the port."""
        if self._connection.refusal is not None:
            raise self._connection.refusal
        size = self._checked(entries)
        if not size:
            return ()
        self._connection.room.take(size)
        if not all(entry.message_id for entry in entries):
            entries = [entry if entry.message_id else msgspec.structs.replace(entry, message_id=self._new_id()) for entry in entries]
        return await self._commits.add(entries, size)

    async def read(self, subject: str, after: int = 0) -> Sequence[Recorded]:
        """See the port."""
        return await self._reader.entries(subject, after)

    async def tail(self, after: int) -> AsyncIterator[Sequence[Recorded]]:
        """See the port."""
        position = after
        while True:
            await self._check_reachable(position)
            with contextlib.suppress(FeedInterruptedError, ApiError):
                async with open_feed(self._connection, self._stream, {"deliver_policy": "by_start_sequence", "opt_start_seq": position + 1}) as feed:
                    looks = _GAPS_LOOKED_AT if self._connection.address.replicas > 1 else 0
                    async for batch in feed.batches():
                        if batch:
                            if looks and batch[-1].sequence - position != len(batch):
                                looks -= 1
                                await self._no_hole(position, batch)
                            position = batch[-1].sequence
                        yield batch
            await asyncio.sleep(_AGAIN_SECONDS)

    async def purge(self, subject: str, *, keep: int = 0, below: int | None = None) -> None:
        """See the port."""
        request: dict[str, object] = {"filter": subject}
        if below is not None:
            request["seq"] = below
        elif keep:
            request["keep"] = keep
        try:
            await self._connection.api(f"STREAM.PURGE.{self._stream}", request)
        except ApiError as exc:
            raise ApplianceError("unavailable", f"the event log does not purge: {exc}") from exc

    async def last_sequence(self) -> int:
        """See the port."""
        return (await self._bounds())[1]

    async def extent(self) -> Extent:
        """See the port."""
        state = (await self._info())["state"]
        return Extent(max(int(state["first_seq"]), 1), int(state["last_seq"]), int(state["bytes"]))

    async def check(self) -> str:
        """See the port."""
        proof = await self._connection.prove()
        info = await self._info()
        state = info["state"]
        return f"{proof}; {state['messages']} entries, {state['bytes']} of {info['config']['max_bytes']} bytes, {info['config']['num_replicas']} replicas"

    async def close(self) -> None:
        """End what is under way."""
        await self._commits.close()

    def _new_id(self) -> str:
        return f"{self._id_prefix}{next(self._ids)}"

    def _checked(self, entries: Sequence[Entry]) -> int:
        """Bytes of all together, 0 for none."""
        size = 0
        for entry in entries:
            body = len(entry.body)
            if body > self._max_body:
                raise ApplianceError(
                    "too_large", f"an event of {body} bytes is too large, {self._max_body} are possible", hint="keep large values in a file"
                )
            if not _is_line(entry.subject) or (entry.message_id and not _is_line(entry.message_id)):
                raise ApplianceError("invalid_request", f"{entry.subject[:60]!r} or its id cannot be written to the event log")
            size += body + HEADER_BYTES
        if len(entries) > 1:
            if len({entry.subject for entry in entries}) != len(entries):
                raise ApplianceError("invalid_request", "entries that are appended together have distinct subjects")
            if len(entries) > LARGEST_BATCH or size > _UNIT_BYTES:
                raise ApplianceError(
                    "too_large", f"{len(entries)} events cannot be appended at once", hint=f"at most {LARGEST_BATCH}, submit fewer at a time"
                )
        return size

    async def _info(self) -> dict[str, Any]:
        try:
            return await self._connection.api(f"STREAM.INFO.{self._stream}")
        except ApiError as exc:
            raise ApplianceError("unavailable", f"the event log is gone: {exc}") from exc

    async def _bounds(self) -> tuple[int, int]:
        """First and last sequence."""
        state = (await self._info())["state"]
        return int(state["first_seq"]), int(state["last_seq"])

    async def _no_hole(self, position: int, batch: Sequence[Recorded]) -> None:
        """What is missing was purged. Raises FeedInterruptedError when the leader has it: the server that feeds us has a copy with a hole."""
        for entry in batch:
            if entry.sequence != position + 1:
                behind = await self._reader.first_behind(">", position)
                if behind is not None and behind.sequence < entry.sequence:
                    raise FeedInterruptedError("its server's copy has a hole")
                return
            position = entry.sequence

    async def _check_reachable(self, position: int) -> None:
        """That nothing behind ``position`` is gone. A leader just elected may not have applied everything yet: a while is waited for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BEHIND_SECONDS
        while True:
            try:
                first, last = await self._bounds()
            except ApplianceError as exc:
                if exc.code != "unavailable":
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if position + 1 < first and position < last:
                raise ApplianceError(
                    "event_unknown", f"the event log begins at {first}, entries behind {position} were purged", hint="load a snapshot"
                )
            if position <= last:
                return
            if loop.time() > deadline:
                raise ApplianceError("log_unsafe", f"the event log ends at {last}, it had {position} before", hint="restore the log from a backup")
            await asyncio.sleep(_AGAIN_SECONDS)


def _is_line(text: str) -> bool:
    return len(text) <= 2 * _LONGEST_ID and text.isprintable() and " " not in text


@asynccontextmanager
async def open_event_log(
    connection: JetStreamConnection, stream: str = STREAM, kinds: Sequence[str] = (TASKS, EXECUTORS, SPACES), *, max_bytes: int | None = None
) -> AsyncIterator[JetStreamEventLog]:
    """The log for the length of a block; its stream is made on first use.

    Args:
        connection: to the servers.
        stream: its name.
        kinds: first tokens of its subjects; no other stream has them.
        max_bytes: of the stream on each server; the address says it when None.

    Raises:
        ApplianceError: ``log_unsafe``, ``unavailable``.
    """
    address = connection.address
    await connection.ensure_stream(
        {
            "name": stream, "subjects": [f"{kind}.>" for kind in kinds], "retention": "limits", "discard": "new", "storage": "file",
            "num_replicas": address.replicas, "max_bytes": max_bytes or address.max_bytes, "duplicate_window": _DUPLICATE_WINDOW_NANOSECONDS,
            "allow_direct": True, "allow_atomic": True, "compression": "none",
        }
    )  # fmt: skip
    log = JetStreamEventLog(connection, stream)
    try:
        yield log
    finally:
        await log.close()
