"""The ports of the event log, on real servers and on the fakes: the same promises everywhere."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from appliance.testing.check_event_log import CHECKS, check_event_log
from appliance.testing.check_object_store import check_leases, check_object_store
from appliance.testing.fakes_event_log import MemoryEventLog, MemoryLeases, MemoryObjectStore
from services.orchestrator.jetstream_leases import JetStreamLeases
from services.orchestrator.jetstream_object_store import JetStreamObjectStore, _subject
from services.orchestrator.jetstream_values import publish_value
from services.orchestrator.ports import LostRaceError
from tests.conformance.nats_bed import nats_bed


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_fake_log_conforms(check):
    log = MemoryEventLog()
    await check(log, log)


@pytest.mark.parametrize("replicas", [1, 3])
async def test_jetstream_conforms(tmp_path, replicas):
    async with nats_bed(tmp_path, replicas) as bed:
        async with bed.logs(2) as (log, other):
            await check_event_log(log, other)
        async with bed.connection() as one, bed.connection() as two:
            stores = [await JetStreamObjectStore.open(connection) for connection in (one, two)]

            async def damage(name):
                head = json.dumps(["0" * 64, 9, "", 0]).encode()
                await publish_value(one, _subject(name), head + b"\nas it was")

            await check_object_store(*stores, damage)
            await check_leases(await JetStreamLeases.open(one), await JetStreamLeases.open(two))


async def test_the_fake_object_store_and_leases_conform():
    store, leases = MemoryObjectStore(), MemoryLeases()

    async def damage(name):
        store.damage(name)

    await check_object_store(store, store, damage)
    await check_leases(leases, leases)


class _Generous(MemoryEventLog):
    """Lets every writer win."""

    async def append(self, entries):
        return await super().append([msgspec.structs.replace(entry, expected=self._newest.get(entry.subject, 0)) for entry in entries])


class _Piecemeal(MemoryEventLog):
    """Stores what it can of an append that must be refused."""

    async def append(self, entries):
        try:
            return await super().append(entries)
        except LostRaceError:
            for entry in entries[:-1]:
                await super().append([entry])
            raise


class _Forgetful(MemoryEventLog):
    """Does not recognise an append that it has."""

    def _stored_before(self, entries):
        return None


class _Skipping(MemoryEventLog):
    """Leaves an entry out of the tail."""

    async def tail(self, after):
        async for batch in super().tail(after):
            yield [one for one in batch if one.sequence % 7]


@pytest.mark.parametrize("broken", [_Generous, _Piecemeal, _Forgetful, _Skipping])
async def test_a_log_that_breaks_a_promise_does_not_pass(broken):
    log = broken()
    with pytest.raises((AssertionError, TimeoutError, LostRaceError)):
        async with asyncio.timeout(5):
            await check_event_log(log, log)
