"""A load on an event log that remembers what was acknowledged, and compares it with what is there afterwards."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager

from appliance.kit.errors import ApplianceError
from services.orchestrator.ports import Entry

WAIT_SECONDS = 60


class LogLoad:
    """Each writer is the only one on its subjects: a lost race is an error. Every fifth append has three entries, which must all be there or none."""

    def __init__(self, log):
        self.log = log
        self.space = f"load{secrets.token_hex(4)}"
        self.stored: dict[int, tuple[str, bytes]] = {}
        self.groups: list[tuple[str, int]] = []
        self.unknown: list[str] = []
        self.longest_gap_seconds = 0.0
        self._last = time.monotonic()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self, writers):
        self._last = time.monotonic()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(self._write(number, stop))
            yield
            stop.set()

    def start(self, writers):
        """Tasks that write until they are cancelled, for cuts that nobody can wait for."""
        never = asyncio.Event()
        return [asyncio.create_task(self._write(number, never)) for number in range(writers)]

    async def acknowledged(self, more):
        """Wait until so many more entries were acknowledged."""
        goal = len(self.stored) + more
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.stored) < goal:
                self._news.clear()
                await self._news.wait()

    async def _write(self, writer, stop):
        last, count = 0, 0
        while not stop.is_set():
            count += 1
            own = f"task.{self.space}.w{writer}"
            entries = [Entry(own, last, b"%d" % count, f"{self.space}-{writer}-{count}")]
            if count % 5 == 0:
                entries += [Entry(f"task.{self.space}.w{writer}x{count}{side}", 0, b"g", f"{self.space}-{writer}-{count}{side}") for side in "ab"]
            while True:
                try:
                    sequences = await self.log.append(entries)
                    break
                except ApplianceError as error:
                    assert error.code == "unavailable", error
                    self.unknown.append(str(error))
            for entry, sequence in zip(entries, sequences, strict=True):
                assert sequence not in self.stored, f"sequence {sequence} was given twice"
                self.stored[sequence] = entry.subject, entry.body
            last = sequences[0]
            now = time.monotonic()
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._last)
            self._last = now
            self._news.set()

    async def check(self, log):
        """All that was acknowledged is there under its sequence, nothing twice, no group in pieces."""
        found = {one.sequence: one for one in await log.read(f"task.{self.space}.>")}
        lost = [
            sequence
            for sequence, (subject, body) in self.stored.items()
            if (one := found.get(sequence)) is None or (one.subject, one.body) != (subject, body)
        ]
        assert not lost, f"{len(lost)} of {len(self.stored)} acknowledged entries are lost: {lost[:5]}"
        ids = [one.message_id for one in found.values()]
        assert len(ids) == len(set(ids)), "an entry was stored twice"
        groups: dict[str, int] = {}
        for one in found.values():
            base = one.message_id.rstrip("ab")
            groups[base] = groups.get(base, 0) + 1
        torn = [base for base, size in groups.items() if size != (3 if int(base.rsplit("-", 1)[1]) % 5 == 0 else 1)]
        assert not torn, f"appends are stored in part: {torn[:5]}"
        extra = len(found) - len(self.stored)
        assert extra >= 0, "fewer are there than were acknowledged"
