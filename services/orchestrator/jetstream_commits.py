"""Group commit: concurrent appends share atomic batches. Owns what waits, what is under way, and the outcome of every append.

A *unit* is one call of ``append``: stored whole or not at all. Invariants:
1. At most one publish per subject is under way from here, so a refusal is never of our own making.
2. At most ``_IN_FLIGHT_…`` batches are under way; what comes meanwhile waits and shares the next. A lone entry with nothing under way goes as a plain publish.
3. A refused batch stored nothing. The suspects (their subject's last sequence is not the expected one) go on alone, the rest shares a batch again.
4. A refused unit has lost its race only if the message right behind its expectation is not its own (``Nats-Msg-Id``): a reply may have been lost before.
5. A unit whose answer is lost is sent again as it was: compare-and-set stores it at most once. Every unit ends by its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_protocol import Message
from services.orchestrator.jetstream_connection import JetStreamConnection
from services.orchestrator.jetstream_frames import DUPLICATE, WRONG_SEQUENCE, PubAck, batch_frames, decode_ack, single_frame
from services.orchestrator.jetstream_outcomes import REFUSED, Outcomes, Unit, unknown
from services.orchestrator.jetstream_reads import StreamReader
from services.orchestrator.ports import Entry

_IN_FLIGHT_ON_ONE: Final = 2
_IN_FLIGHT_ON_MORE: Final = 3
_BATCH_ENTRIES: Final = 256
_FEW_ON_ONE: Final = 10
_FEW_ON_MORE: Final = 1
_BATCH_BYTES: Final = 4 * 1024 * 1024
_ANSWER_SECONDS: Final = 3.0
_DOUBTFUL_ANSWER_SECONDS: Final = 1.0  # after a silence: a stream without a leader does not answer, a new one shall be found soon
_DEADLINE_SECONDS: Final = 20.0
_MOST_WAITING: Final = 50_000
_MOST_WAITING_BYTES: Final = 256 * 1024 * 1024
_LOOK_AHEAD: Final = 4096
_AGAIN_SECONDS: Final = 0.02
_SWEEP_SECONDS: Final = 0.5


class Commits:
    """The committer of one log. Lives on one event loop."""

    def __init__(self, connection: JetStreamConnection, reader: StreamReader) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Unit] = deque()
        self._waiting_bytes = 0
        self._busy: set[str] = set()
        self._in_flight = 0
        self._batches = 0
        self._singles = 0
        self._sent: set[Unit] = set()
        self._flush_due = False
        self._batch_name = secrets.token_hex(4)
        self._numbers = count(1)
        self._slow: set[asyncio.Task[None]] = set()
        self._outcomes = Outcomes(connection, reader, self._publish)
        self._sweeper: asyncio.TimerHandle | None = None
        on_one = connection.address.replicas == 1
        self._few = _FEW_ON_ONE if on_one else _FEW_ON_MORE
        self._most_in_flight = _IN_FLIGHT_ON_ONE if on_one else _IN_FLIGHT_ON_MORE
        self._in_doubt = False
        self._closed = False
        connection.on_usable.append(self._flush_soon)

    def add(self, entries: Sequence[Entry], size: int) -> asyncio.Future[Sequence[int]]:
        """Append ``entries`` (checked, with ids) of together ``size`` bytes. Raises ``overloaded``, ``unavailable`` (closed)."""
        if self._closed:
            raise ApplianceError("unavailable", "the event log is closed")
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes > _MOST_WAITING_BYTES:
            raise ApplianceError("overloaded", "too many appends wait for the event log", hint="try again in a moment")
        done: asyncio.Future[Sequence[int]] = self._loop.create_future()
        self._waiting.append(Unit(entries, done, self._loop.time() + _DEADLINE_SECONDS, size))
        self._waiting_bytes += size
        if not self._flush_due:
            self._flush_soon()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        return done

    async def close(self) -> None:
        """Nothing more is taken; whoever waits is told that nobody knows."""
        self._closed = True
        with contextlib.suppress(ValueError):
            self._connection.on_usable.remove(self._flush_soon)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._slow:
            task.cancel()
        await asyncio.gather(*self._slow, return_exceptions=True)
        for unit in self._sent:
            unit.fail(unknown("the event log is closed"))
        while self._waiting:
            self._waiting.popleft().fail(unknown("the event log is closed"))

    def _flush_soon(self) -> None:
        """Once the callers that are ready now have had their turn."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        while self._waiting and self._has_room() and self._connection.usable:
            units = self._take()
            if not units:
                return
            self._send(units)

    def _has_room(self) -> bool:
        """Whether another group may go; few entries, with no batch to join, never wait for those before them."""
        return self._in_flight < self._most_in_flight or (not self._batches and self._singles + len(self._waiting) <= self._few)

    def _take(self) -> list[Unit]:
        """Units for one batch: none of their subjects is under way, or waits before them."""
        units: list[Unit] = []
        kept: list[Unit] = []
        blocked: set[str] = set()
        room, size, busy, waiting = _BATCH_ENTRIES, _BATCH_BYTES, self._busy, self._waiting
        for _ in range(min(len(waiting), _LOOK_AHEAD)):
            unit = waiting[0]
            if units and (len(unit.entries) > room or unit.size > size):
                break
            waiting.popleft()
            subjects = unit.subjects
            if busy.isdisjoint(subjects) and blocked.isdisjoint(subjects):
                busy.update(subjects)
                units.append(unit)
                self._waiting_bytes -= unit.size
                room -= len(subjects)
                size -= unit.size
            else:
                blocked.update(subjects)
                kept.append(unit)
        waiting.extendleft(reversed(kept))
        return units

    def _send(self, units: list[Unit]) -> None:
        """Publish units together; their subjects are busy already."""
        self._in_flight += 1
        self._sent.update(units)
        if len(units) <= self._few and all(len(unit.entries) == 1 for unit in units):
            self._send_singly(units)
            return
        entries = units[0].entries if len(units) == 1 else [entry for unit in units for entry in unit.entries]

        self._batches += 1

        def answered(ack: PubAck | None) -> None:
            self._in_flight -= 1
            self._batches -= 1
            self._answered(units, len(entries), ack)

        self._publish(entries, answered)

    def _send_singly(self, units: list[Unit]) -> None:
        left = len(units)
        self._singles += left

        def answered(unit: Unit, ack: PubAck | None) -> None:
            nonlocal left
            left -= 1
            self._singles -= 1
            if not left:
                self._in_flight -= 1
            self._answered([unit], 1, ack)

        for unit in units:
            self._publish(unit.entries, partial(answered, unit))

    def _publish(self, entries: Sequence[Entry], answered: Callable[[PubAck | None], None]) -> None:
        """``answered`` gets the server's answer, once; None when there is none and nobody knows."""
        wire = self._wire
        reply, is_open = "", True

        def late() -> None:
            self._in_doubt = True
            end(None)

        def end(ack: PubAck | None) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                timer.cancel()
                if ack is not None:
                    self._in_doubt = False
                wire.forget(reply)
                answered(ack)

        timer = self._loop.call_later(_DOUBTFUL_ANSWER_SECONDS if self._in_doubt else _ANSWER_SECONDS, late)
        reply = wire.expect(lambda message: end(_ack(message)), lambda: end(None))
        try:
            if len(entries) == 1:
                wire.send(single_frame(entries[0], reply))
            else:
                wire.send(batch_frames(entries, f"{self._batch_name}{next(self._numbers)}", reply))
        except ConnectionError:
            self._loop.call_soon(end, None)

    def _answered(self, units: list[Unit], size: int, ack: PubAck | None) -> None:
        self._sent.difference_update(units)
        if ack is not None and ack.error is None and ack.seq and ack.count == size:
            first = ack.seq - size + 1
            for unit in units:
                self._busy.difference_update(unit.subjects)
                unit.succeed(first)
                first += len(unit.entries)
        else:
            self._not_stored(units, ack)
        if self._waiting:
            self._flush_soon()

    def _not_stored(self, units: list[Unit], ack: PubAck | None) -> None:
        """Refused, or nobody knows."""
        code = ack.error.err_code if ack is not None and ack.error is not None else 0
        if code == 0:
            for unit in units:
                unit.maybe_stored = True
        if len(units) == 1:
            self._spawn(self._settle(units[0], ack))
        elif code in WRONG_SEQUENCE or code in DUPLICATE:
            self._spawn(self._divide(units))
        elif code in REFUSED:
            for unit in units:
                self._spawn(self._settle(unit, ack))
        else:  # an election, a lost connection: all again
            self._loop.call_later(_AGAIN_SECONDS, self._put_back, units)

    def _put_back(self, units: list[Unit]) -> None:
        """They wait again, before all others."""
        for unit in units:
            self._busy.difference_update(unit.subjects)
            self._waiting_bytes += unit.size
        self._waiting.extendleft(reversed(units))
        self._sweep()
        self._flush_soon()

    async def _divide(self, units: list[Unit]) -> None:
        """A batch was refused: who is to blame goes on alone."""
        suspects = await self._outcomes.suspects(units)
        if not suspects and len(units) > 2:
            half = len(units) // 2
            self._send(units[:half])
            self._send(units[half:])
            return
        alone = [unit for unit in units if unit in suspects] if suspects else units
        for unit in alone:
            self._spawn(self._settle(unit, None))
        if suspects:
            self._put_back([unit for unit in units if unit not in suspects])

    async def _settle(self, unit: Unit, ack: PubAck | None) -> None:
        try:
            await self._outcomes.settle(unit, ack)
        except asyncio.CancelledError:
            unit.fail(unknown("the event log is closed"))
            raise
        finally:
            self._busy.difference_update(unit.subjects)
            if self._waiting:
                self._flush_soon()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    def _sweep(self) -> None:
        """End those that waited too long for a connection."""
        now, refusal = self._loop.time(), self._connection.refusal
        while self._waiting and (self._waiting[0].deadline <= now or refusal is not None):
            unit = self._waiting.popleft()
            self._waiting_bytes -= unit.size
            unit.fail(refusal or unknown(self._wire.last_error))
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep) if self._waiting and not self._closed else None


def _ack(message: Message) -> PubAck | None:
    """None when the answer is not the stream's: nobody listens (an election), or something unreadable."""
    if message.header:
        return None
    try:
        return decode_ack(message.payload)
    except msgspec.DecodeError:
        return None
