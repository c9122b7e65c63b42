"""What happens, for those who watch (``Feed`` of the contract). Owns: fan-out of the tail in the order of the log, cut to what each may see; slow readers.

A feed is fed from the tail, never from own writes, so its order is the log's and ``after`` takes it up exactly where it broke.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from appliance.contracts.orchestrator.v1.values import TaskEvent
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain.upcasting import decode_envelope
from services.orchestrator.ports import EventLog, Recorded
from services.orchestrator.replica import Replica
from services.orchestrator.rights import Rights
from services.orchestrator.subjects import TASKS, subject_names
from services.orchestrator.views import event_views

MOST_FEEDS: Final = 4_096
MOST_BEHIND: Final = 10_000
MOST_REPLAYED: Final = 100_000


class LiveFeed:
    """See the module. ``take`` is a raw listener of the replica."""

    def __init__(self, replica: Replica, log: EventLog, rights: Rights) -> None:
        self._replica = replica
        self._event_log = log
        self._rights = rights
        self._readers: dict[asyncio.Queue[Sequence[Recorded] | None], int] = {}

    def take(self, batch: Sequence[Recorded]) -> None:
        """Hand a batch of the tail to every reader; one that is too far behind is cut off."""
        for queue in list(self._readers):
            self._readers[queue] += len(batch)
            if self._readers[queue] > MOST_BEHIND:
                del self._readers[queue]
                queue.put_nowait(None)
            else:
                queue.put_nowait(batch)

    async def follow(
        self, principal: Principal, after: int | None = None, task_id: str | None = None, space: str | None = None
    ) -> AsyncIterator[TaskEvent]:
        """See the contract."""
        if len(self._readers) >= MOST_FEEDS:
            raise ApplianceError("overloaded", "too many feeds are open", hint="try again later")
        queue: asyncio.Queue[Sequence[Recorded] | None] = asyncio.Queue()
        position = self._replica.projection.position
        self._readers[queue] = 0
        try:
            if after is not None and after < position:
                async for event in self._missed(principal, after, position, task_id, space):
                    yield event
            while True:
                batch = await queue.get()
                if batch is None:
                    raise ApplianceError("overloaded", "the reader of the feed is too slow", hint="take it up again after the last event")
                for recorded in batch:
                    if recorded.sequence > max(position, after or 0):
                        for event in self._visible(principal, recorded, task_id, space):
                            yield event
                if queue in self._readers:
                    self._readers[queue] -= len(batch)
        finally:
            self._readers.pop(queue, None)

    async def _missed(self, principal: Principal, after: int, until: int, task_id: str | None, space: str | None) -> AsyncIterator[TaskEvent]:
        """What the log has between the reader's last event and now."""
        count = 0
        async for batch in self._event_log.tail(after):
            for recorded in batch:
                if recorded.sequence > until:
                    return
                count += 1
                if count > MOST_REPLAYED:
                    raise ApplianceError("overloaded", "the feed broke too long ago", hint="list the tasks, then follow from now")
                for event in self._visible(principal, recorded, task_id, space):
                    yield event
            if not batch or batch[-1].sequence >= until:
                return

    def _visible(self, principal: Principal, recorded: Recorded, task_id: str | None, space: str | None) -> Sequence[TaskEvent]:
        kind, *names = subject_names(recorded.subject)
        if kind != TASKS or (task_id is not None and names[-1] != task_id) or (space is not None and names[0] != space):
            return ()
        state = self._replica.projection.tasks.get(names[-1])
        if state is None or not self._rights.may_read(principal, state):
            return ()
        return tuple(event_views(names[-1], names[0], decode_envelope(recorded.body), recorded.sequence))
