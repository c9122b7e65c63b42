"""Reading a thread from the log: the fold with the objects that it needs. Owns what is done when the log is another one than it was."""

from __future__ import annotations

from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.langgraph.thread_events import Packed, ThreadEvent, blobs_of, decode, unpack
from services.orchestrator.langgraph.thread_state import ThreadState
from services.orchestrator.langgraph.thread_values import ThreadValues
from services.orchestrator.ports import EventLog, Recorded

STALE_READS: Final = 3
"""How often a reading is begun anew because others pruned meanwhile."""


class ThreadReader:
    """Folds entries. Keeps nothing."""

    def __init__(self, log: EventLog, values: ThreadValues) -> None:
        self._log = log
        self._values = values

    async def extended(self, thread: str, subject: str, state: ThreadState) -> ThreadState:
        """``state`` with what the log has behind it; made anew when the log no longer has what it ends with.

        Raises:
            ApplianceError: ``unavailable``; ``snapshot_altered``; ``event_unknown`` for what a newer release wrote.
        """
        for _ in range(STALE_READS):
            entries = await self._log.read(subject, max(state.sequence - 1, 0))
            if state.sequence and not (entries and entries[0].sequence == state.sequence):  # pruned or deleted by somebody else
                state = ThreadState()
                entries = await self._log.read(subject)
            try:
                for entry in entries:
                    if entry.sequence > state.sequence:
                        state = await self.applied(thread, state, entry)
                return state
            except ApplianceError as error:
                if error.code != "not_found":
                    raise
                state = ThreadState()  # an object went with a pruning since the entries were read
        raise ApplianceError("snapshot_altered", f"objects of the thread {thread} are gone", hint="restore the event log from a backup")

    async def applied(self, thread: str, state: ThreadState, entry: Recorded) -> ThreadState:
        """With one more entry. ``state`` itself is changed, unless the entry replaces it."""
        for event in decode(entry.body).events:
            if isinstance(event, Packed):
                state = await self._unpacked(thread, state, event)
            else:
                _take_in(state, event)
        state.sequence = entry.sequence
        state.size_bytes += len(entry.body)
        return state

    async def _unpacked(self, thread: str, state: ThreadState, packed: Packed) -> ThreadState:
        data = await self._values.data(thread, packed.contents)
        if packed.replaces:
            state = ThreadState()
        if packed.contents.key:
            state.objects.add(packed.contents.key)
            state.size_bytes += len(data)
        for event in unpack(data):
            _take_in(state, event)
        return state


def _take_in(state: ThreadState, event: ThreadEvent) -> None:
    state.apply(event)
    state.objects.update(blob.key for blob in blobs_of(event) if blob.key)
