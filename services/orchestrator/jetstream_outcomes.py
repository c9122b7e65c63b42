"""What became of an append whose answer was bad or lost. Owns the decision between stored, lost and unknown; slow and careful, one unit at a time.

The decision rests on what cannot change any more: the message right behind the expected one on a subject is either ours (its ``Nats-Msg-Id``) or not.
What only *may* be so (a follower that lags, a leader that was deposed) leads to another try, until the unit's deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from appliance.kit.errors import ApplianceError
from services.orchestrator.jetstream_connection import ApiError, JetStreamConnection
from services.orchestrator.jetstream_frames import DUPLICATE, FULL, TOO_LARGE, WRONG_SEQUENCE, PubAck, PubError
from services.orchestrator.jetstream_reads import StreamReader
from services.orchestrator.ports import Entry, LostRaceError

REFUSED: Final = FULL | TOO_LARGE
_AT_ONCE: Final = 32
_AGAIN_SECONDS: Final = 0.02
_LONGEST_AGAIN_SECONDS: Final = 0.5

Publish = Callable[[Sequence[Entry], Callable[[PubAck | None], None]], None]


class Unit:
    """One append under way: stored whole or not at all."""

    __slots__ = ("deadline", "done", "entries", "maybe_stored", "size", "subjects")

    def __init__(self, entries: Sequence[Entry], done: asyncio.Future[Sequence[int]], deadline: float, size: int) -> None:
        self.entries = entries
        self.subjects = [entry.subject for entry in entries]
        self.done = done
        self.deadline = deadline
        self.size = size
        self.maybe_stored = False

    def succeed(self, first: int) -> None:
        """Stored, its first entry at ``first``."""
        if not self.done.done():
            self.done.set_result(range(first, first + len(self.entries)))

    def fail(self, error: Exception) -> None:
        """Not stored, or nobody knows."""
        if not self.done.done():
            self.done.set_exception(error)


def unknown(why: str) -> ApplianceError:
    """Nobody knows whether it was stored; the same call again tells."""
    return ApplianceError("unavailable", f"the event log does not answer: {why}", hint="try again: a repeated command is carried out once")


class Outcomes:
    """Settles units. ``publish`` sends entries and calls back with the answer, None when it is lost."""

    def __init__(self, connection: JetStreamConnection, reader: StreamReader, publish: Publish) -> None:
        self._connection = connection
        self._reader = reader
        self._publish = publish
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def suspects(self, units: Sequence[Unit]) -> set[Unit]:
        """Those of a refused batch whose expectations do not hold, as far as one quick look tells."""
        try:
            last = await self._reader.last_of([subject for unit in units for subject in unit.subjects])
        except (ApplianceError, ConnectionError, TimeoutError):
            return set()
        return {unit for unit in units if any(last.get(entry.subject, 0) != entry.expected for entry in unit.entries)}

    async def settle(self, unit: Unit, ack: PubAck | None) -> None:
        """End ``unit``; ``ack`` is the answer to its last try (None: look first, then try)."""
        loop = asyncio.get_running_loop()
        pause = _AGAIN_SECONDS
        async with self._slots:
            looked = ack is not None
            while loop.time() < unit.deadline:
                try:
                    if not looked and await self._found(unit, None):
                        return
                    if looked and await self._ended(unit, ack):
                        return
                    if looked:
                        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads retries
                        pause = min(pause * 2, _LONGEST_AGAIN_SECONDS)
                    looked = True
                    await self._connection.wait_usable(max(0.0, unit.deadline - loop.time()))
                    ack = await self._send(unit)
                except (ApplianceError, ConnectionError, TimeoutError):
                    if self._connection.refusal is not None:
                        unit.fail(self._connection.refusal)
                        return
                    ack, looked = None, True
                    await asyncio.sleep(pause)
        if ack is not None and ack.error is not None and ack.error.err_code in WRONG_SEQUENCE and not unit.maybe_stored:
            unit.fail(LostRaceError(unit.subjects))
        else:
            unit.fail(unknown(ack.error.description if ack is not None and ack.error is not None else self._connection.wire.last_error))

    async def _send(self, unit: Unit) -> PubAck | None:
        answer: asyncio.Future[PubAck | None] = asyncio.get_running_loop().create_future()

        def answered(ack: PubAck | None) -> None:
            if not answer.done():
                answer.set_result(ack)

        self._publish(unit.entries, answered)
        return await answer

    async def _ended(self, unit: Unit, ack: PubAck | None) -> bool:
        """Whether the answer settles the unit."""
        if ack is None:
            unit.maybe_stored = True
            return False
        error = ack.error
        if error is None:
            unit.succeed(ack.seq - len(unit.entries) + 1)
            return True
        if error.err_code in WRONG_SEQUENCE or error.err_code in DUPLICATE:
            return await self._found(unit, error)
        if error.err_code in REFUSED:
            if not (unit.maybe_stored and await self._found(unit, None)):
                unit.fail(_refusal(error))
            return True
        return False

    async def _found(self, unit: Unit, error: PubError | None) -> bool:
        """Whether what stands in the log settles the unit."""
        first = unit.entries[0]
        try:
            behind = await self._reader.first_behind(first.subject, first.expected)
        except ApiError:
            return False
        if behind is not None and behind.message_id == first.message_id:
            unit.succeed(behind.sequence)
            return True
        if behind is not None:
            unit.fail(LostRaceError(await self._guilty(unit, None) or [first.subject]))
            return True
        if error is None or error.err_code not in WRONG_SEQUENCE or error.last_sequence is None or unit.maybe_stored:
            return False
        guilty = [first.subject] if len(unit.entries) == 1 and error.last_sequence < first.expected else await self._guilty(unit, error.last_sequence)
        if guilty:
            unit.fail(LostRaceError(guilty))
        return bool(guilty)

    async def _guilty(self, unit: Unit, told: int | None) -> list[str]:
        """Subjects that somebody else moved; a lagging follower's word that they stand *before* the expectation counts only if the leader said so too."""
        if len(unit.entries) == 1:
            return []
        last = await self._reader.last_of(unit.subjects)
        return [
            entry.subject for entry in unit.entries if (now := last.get(entry.subject, 0)) > entry.expected or (now != entry.expected and now == told)
        ]


def _refusal(error: PubError) -> ApplianceError:
    if error.err_code in TOO_LARGE:
        return ApplianceError("too_large", f"the event log refuses: {error.description}", hint="keep large values in a file")
    return ApplianceError("disk_full", f"the event log is full: {error.description}", hint="free space, or raise the log's bound, then try again")
