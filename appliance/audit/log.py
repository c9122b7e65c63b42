"""The audit log as an event loop sees it: append, and know when the record is durable.

Group commit: callers put encoded records into a queue; one thread takes everything that waits, and one write, one ``fdatasync`` and
one signature serve them all (``appliance.audit.journal``). Alone a record costs one fsync; under load they share it.

Nothing is dropped silently: a full queue makes ``append`` wait and ``append_nowait`` refuse; a full disk refuses every record until
there is space; a damaged log refuses until an operator acts.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.head import Head
from appliance.audit.journal import SEGMENT_BYTES, Journal, timestamp
from appliance.audit.record import Detail, Outcome, encode_fields
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import correlation_id

CAPACITY: Final = 8192
MAX_BATCH: Final = 1024


@dataclass(frozen=True, slots=True)
class _Waiting:
    fields: bytes
    durable: asyncio.Future[int]


class AuditLog:
    """Appends to the log in a folder; several processes may hold one each on the same folder.

    Use it on the event loop that opened it. Open with :meth:`open`, or ``async with await AuditLog.open(...) as audit``.
    """

    def __init__(self, journal: Journal, *, capacity: int = CAPACITY) -> None:
        self._journal = journal
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._pending = 0
        self._room = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._write_forever, name="audit-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, folder: Path, key: Ed25519PrivateKey, *, segment_bytes: int = SEGMENT_BYTES, capacity: int = CAPACITY) -> Self:
        """Open or make the log in ``folder`` and repair what a crash left (recorded as ``audit.repaired``).

        Raises:
            ApplianceError: ``audit_broken`` when the log is not what its head says; ``home_invalid``; ``disk_full``.
        """
        journal = await asyncio.to_thread(Journal, folder, key, segment_bytes=segment_bytes)
        return cls(journal, capacity=capacity)

    async def append(
        self,
        *,
        actor: str,
        action: str,
        resource: str,
        outcome: Outcome,
        detail: Detail | None = None,
        trace_id: str | None = None,
    ) -> int:
        """Append one record; returns its number once it is durable. Waits while the queue is full.

        Args:
            actor: ``Principal.subject``, ``anonymous`` or ``system:<part>``.
            action: ``noun.verb`` (``document.delete``).
            resource: ``noun:id`` (``document:d_12``).
            outcome: ``allow``/``deny`` for an access decision, ``ok``/``error`` for a change that was made or failed.
            detail: a few plain values; never secrets, never text of documents or questions.
            trace_id: correlation id; None takes the current one.

        Raises:
            ApplianceError: ``disk_full``, ``audit_broken``, ``unavailable`` (closed): the caller must refuse its own caller.
        """
        while self._pending >= self._capacity and not self._closed:
            self._room.clear()
            await self._room.wait()
        return await self.append_nowait(actor=actor, action=action, resource=resource, outcome=outcome, detail=detail, trace_id=trace_id)

    def append_nowait(
        self,
        *,
        actor: str,
        action: str,
        resource: str,
        outcome: Outcome,
        detail: Detail | None = None,
        trace_id: str | None = None,
    ) -> asyncio.Future[int]:
        """As :meth:`append`, but returns at once with a future: do other work, then await it before acknowledging anything.

        Raises:
            ApplianceError: ``overloaded`` when the queue is full, ``unavailable`` when closed.
        """
        if self._closed:
            raise ApplianceError("unavailable", "the audit log is closed", hint="the box is stopping; try again soon")
        if self._pending >= self._capacity:
            raise ApplianceError("overloaded", "too many audit records are waiting for the disk", hint="try again")
        fields = encode_fields(
            time=timestamp(),
            trace_id=correlation_id.get() if trace_id is None else trace_id,
            actor=actor,
            action=action,
            resource=resource,
            outcome=outcome,
            detail=detail,
        )
        durable: asyncio.Future[int] = self._loop.create_future()
        self._pending += 1
        self._queue.put(_Waiting(fields, durable))
        return durable

    @property
    def head(self) -> Head:
        """The end of the log as this process last wrote it."""
        return self._journal.head

    async def aclose(self) -> None:
        """Write what waits, then let go of the files."""
        if self._closed:
            return
        self._closed = True
        self._room.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def _write_forever(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._take()
            if batch:
                self._commit(batch)
        self._journal.close()

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Everything that waits, at most ``MAX_BATCH``; False when this was the end."""
        batch: list[_Waiting] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == MAX_BATCH:
                return batch, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit(self, batch: list[_Waiting]) -> None:
        settled = False

        def settle(first: int, failure: ApplianceError | None = None) -> None:
            nonlocal settled
            settled = True
            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                self._loop.call_soon_threadsafe(self._settle, batch, first, failure)

        failure: ApplianceError | None = None
        try:
            self._journal.commit([waiting.fields for waiting in batch], settle)
        except ApplianceError as error:
            failure = error
        except Exception as error:
            failure = ApplianceError("internal", "the audit writer failed", hint="send the log to support", cause=repr(error))
        if failure is not None and not settled:  # after the acknowledgement only the head is at stake; the next batch writes it again
            settle(0, failure)

    def _settle(self, batch: Sequence[_Waiting], first: int, failure: ApplianceError | None) -> None:
        self._pending -= len(batch)
        self._room.set()
        for seq, waiting in enumerate(batch, first):
            if waiting.durable.done():
                continue
            if failure is None:
                waiting.durable.set_result(seq)
            else:
                waiting.durable.set_exception(failure)
